"""Pictures of strangers: every one is decoded as defined or refused with a reason, and bars go where they are bars."""

import io
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from harness.images import (
    PictureError,
    crop_to_aspect,
    decode_picture,
    picture_grid,
    remove_letterbox,
    resize_picture,
    save_png,
)

SLUGS = ("unreadable", "format", "too_large", "damaged")


def scene(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, 3): smooth colours with some texture, as photos have."""
    noise = np.random.default_rng(seed).integers(40, 216, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, kind, **options)
    return stream.getvalue()


def reason_of(source: Path | bytes) -> str:
    with pytest.raises(PictureError) as caught:
        decode_picture(source)
    reason = caught.value.reason
    assert reason == str(caught.value) and "\n" not in reason and len(reason) < 230
    assert reason.split(": ")[0] in SLUGS and reason.split(": ", 1)[1]
    return reason


# ---- 500 damaged pictures ----


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    kind = rng.integers(6)
    at = int(rng.integers(len(data)))
    if kind == 0:  # cut
        return bytes(data[:at])
    if kind == 1:  # flipped bits
        for k in rng.integers(len(data), size=int(rng.integers(1, 20))):
            data[k] ^= 1 << int(rng.integers(8))
    if kind == 2:  # flipped bits in the header
        for k in rng.integers(min(64, len(data)), size=3):
            data[k] = int(rng.integers(256))
    if kind == 3:  # a hole of zeros
        data[at : at + 200] = bytes(len(data[at : at + 200]))
    if kind == 4:  # something inserted
        data[at:at] = rng.bytes(int(rng.integers(1, 64)))
    if kind == 5:  # two parts swapped
        data = data[at:] + data[:at]
    return bytes(data)


def test_500_damaged_pictures_are_all_accounted_for():
    rng = np.random.default_rng(7)
    picture = scene()
    alpha = np.dstack([picture, picture[..., 0]])
    sources = [encoded(picture, "JPEG"), encoded(picture, "JPEG", progressive=True), encoded(picture), encoded(alpha)]
    sources += [encoded(picture, "WEBP"), encoded(picture, "WEBP", lossless=True)]
    outcomes: dict[str, int] = {}
    for k in range(500):
        try:
            decoded = decode_picture(mutated(sources[k % len(sources)], rng), (32, 32) if k % 3 == 0 else None)
            assert decoded.dtype == np.uint8 and decoded.ndim == 3 and decoded.shape[2] == 3
            outcome = "ok"
        except PictureError as error:
            outcome = error.reason.split(":")[0]
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert sum(outcomes.values()) == 500 and set(outcomes) <= {"ok", *SLUGS}
    assert outcomes["damaged"] > 50 and outcomes["format"] > 50 and outcomes["ok"] > 10


@pytest.mark.parametrize("kind, options", [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})])
def test_a_truncated_picture_is_never_half_a_picture(kind: str, options: dict):
    content = encoded(scene(), kind, **options)
    for length in range(0, len(content) - 30, max(1, len(content) // 40)):
        assert reason_of(content[:length]).split(":")[0] in ("format", "damaged")


# ---- bombs ----


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60000, 60000), (10000, 10000), (7100, 7100), (2_000_000_000, 1)])
@pytest.mark.filterwarnings("error")
def test_a_huge_picture_is_refused_before_it_is_decoded(size: tuple[int, int]):
    content = png_header(*size)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason_of(content).startswith("too_large: ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 50 * 1024


def test_a_text_bomb_in_a_png_is_refused():
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "a" * 100_000_000, zip=True)
    assert reason_of(encoded(scene(), pnginfo=info)).startswith("damaged: ")


# ---- what is no picture for us ----


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "PCX", "TGA", "JPEG2000", "PDF", "EPS"])
def test_other_formats_are_refused_whatever_they_are_called(kind: str, tmp_path: Path):
    try:
        content = encoded(scene(64, 64), kind)
    except OSError:
        pytest.skip(f"this Pillow writes no {kind}")
    (tmp_path / "x.jpg").write_bytes(content)
    assert reason_of(tmp_path / "x.jpg").startswith("format: ")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xd8\xff", b"8BPS\x00\x01" + bytes(100), b"SIMPLE  =   T" + bytes(3000), b"<svg></svg>", b"<html>"],
)
def test_no_pictures_are_refused(content: bytes, tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(content)
    assert reason_of(tmp_path / "x.jpg") == reason_of(content)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    for name in ("missing.jpg", "loop", "gone", ".", "a\x00b", "a" * 300):
        assert reason_of(tmp_path / name).startswith("unreadable: ")


def test_odd_names_are_read(tmp_path: Path):
    for name in ("ü€😀 x.png", "a'b\"c;$d.png", os.fsdecode(b"\xff\xfe.png")):
        (tmp_path / name).write_bytes(encoded(scene()))
        assert np.array_equal(decode_picture(tmp_path / name), scene())


# ---- golden pixels ----

GREY = np.array([[0, 1, 128, 254], [255, 127, 64, 32]], np.uint8)


def rows(*pixels: tuple[int, int, int]) -> list:
    return [list(pixel) for pixel in pixels]


def test_grey_and_black_and_white():
    expected = np.repeat(GREY[..., None], 3, axis=2)
    assert np.array_equal(decode_picture(encoded(GREY)), expected)
    assert np.array_equal(decode_picture(encoded(Image.fromarray(GREY > 127))), np.where(expected > 127, 255, 0))
    assert np.abs(decode_picture(encoded(np.full((8, 8), 77, np.uint8), "JPEG")).astype(int) - 77).max() <= 1


def test_16_bits_of_grey_are_scaled_and_not_clipped():
    levels = np.array([[0, 257, 128 * 257, 65535, 300, 40000]], np.uint16)
    assert decode_picture(encoded(levels))[0].tolist() == [[v, v, v] for v in (0, 1, 128, 255, 1, 156)]


def test_transparency_is_laid_over_white():
    la = np.dstack([GREY, np.array([[0, 255, 128, 255], [255, 0, 255, 255]], np.uint8)])
    decoded = decode_picture(encoded(Image.fromarray(la, "LA")))
    assert decoded[0].tolist() == rows((255,) * 3, (1,) * 3, (191,) * 3, (254,) * 3)
    assert decoded[1, 1].tolist() == [255, 255, 255]
    rgba = np.array([[[200, 0, 0, 0], [200, 0, 0, 255], [200, 0, 0, 51]]], np.uint8)
    assert decode_picture(encoded(rgba))[0].tolist() == rows((255, 255, 255), (200, 0, 0), (244, 204, 204))
    assert np.array_equal(decode_picture(encoded(rgba, "WEBP", lossless=True)), decode_picture(encoded(rgba)))


def test_palettes_with_and_without_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    image.putdata([0, 1, 2])
    assert decode_picture(encoded(image))[0].tolist() == rows((10, 20, 30), (200, 100, 50), (1, 2, 3))
    assert decode_picture(encoded(image, transparency=1))[0].tolist() == rows((10, 20, 30), (255, 255, 255), (1, 2, 3))
    alphas = decode_picture(encoded(image, transparency=bytes([255, 51, 0])))
    assert alphas[0].tolist() == rows((10, 20, 30), (244, 224, 214), (255, 255, 255))


def test_one_colour_may_be_transparent():
    picture = np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8)
    assert decode_picture(encoded(picture, transparency=(9, 9, 9)))[0].tolist() == rows((255, 255, 255), (1, 2, 3))
    grey = np.array([[9, 7]], np.uint8)
    assert decode_picture(encoded(grey, transparency=9))[0].tolist() == rows((255, 255, 255), (7, 7, 7))


def test_cmyk_is_no_negative():
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 0] = 255  # all cyan
    decoded = decode_picture(encoded(Image.fromarray(ink, "CMYK"), "JPEG"))
    assert np.abs(decoded.astype(int) - [0, 255, 255]).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    content = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert (decode_picture(content) == [255, 0, 0]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_turned_picture_is_set_upright(orientation: int, kind: str):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[8:, 16:] = (250, 0, 0), (0, 0, 250)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    decoded = decode_picture(encoded(np.ascontiguousarray(stored), kind, exif=exif, **options))
    assert decoded.shape == upright.shape and np.abs(decoded.astype(int) - upright).max() < 30


def test_broken_exif_does_not_refuse_a_picture():
    content = encoded(scene(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff" + bytes(40))
    assert decode_picture(content).shape == (60, 80, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 10000), (10000, 1)])
def test_extreme_shapes(size: tuple[int, int]):
    picture = decode_picture(encoded(scene(*size)))
    assert picture.shape == (*size, 3)
    assert resize_picture(crop_to_aspect(remove_letterbox(picture), 32, 64), 32, 64).shape == (32, 64, 3)


# ---- the fast path ----


def test_the_fast_path_decodes_smaller_but_not_too_small():
    content = encoded(scene(640, 960), "JPEG")
    assert decode_picture(content, (64, 64)).shape == (160, 240, 3)
    assert decode_picture(content, (128, 224)).shape == (320, 480, 3)
    assert decode_picture(content, (400, 400)).shape == (640, 960, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(encoded(scene(640, 960), "JPEG", exif=exif), (150, 60)).shape == (480, 320, 3)
    exact = resize_picture(decode_picture(content), 64, 64).astype(int)
    assert np.abs(resize_picture(decode_picture(content, (64, 64)), 64, 64) - exact).mean() < 1
    assert np.array_equal(decode_picture(encoded(scene()), (8, 8)), scene()), "only JPEG has it"


# ---- letterbox bars ----


def through_jpeg(picture: np.ndarray, quality: int = 70) -> np.ndarray:
    return decode_picture(encoded(np.ascontiguousarray(picture), "JPEG", quality=quality))


@pytest.mark.parametrize("colour", [0, 16, 255])
@pytest.mark.parametrize(
    "bars", [(12, 12, 0, 0), (0, 0, 20, 20), (30, 0, 0, 0), (0, 0, 0, 9), (10, 14, 20, 7), (5, 5, 5, 5)]
)
def test_bars_go(bars: tuple[int, int, int, int], colour: int):
    top, bottom, left, right = bars
    inside = scene(120, 160)
    picture = np.pad(inside, ((top, bottom), (left, right), (0, 0)), constant_values=colour)
    kept = remove_letterbox(through_jpeg(picture))
    assert 112 <= kept.shape[0] <= 120 and 152 <= kept.shape[1] <= 160, "no bar stays, little of the picture goes"
    assert kept.shape[0] == 120 or top + bottom
    assert kept.shape[1] == 160 or left + right
    for edge in (kept[0], kept[-1], kept[:, 0], kept[:, -1]):
        assert (np.abs(edge.astype(int) - colour).max(axis=1) > 20).mean() > 0.5, "a line of a bar stayed"


def unchanged(picture: np.ndarray) -> bool:
    return remove_letterbox(picture).shape == picture.shape


def test_dark_and_bright_photos_survive():
    y = np.linspace(0, 1, 120)[:, None, None]
    night = np.broadcast_to((y**3 * 90).astype(np.uint8), (120, 160, 3)).copy()  # a sky that brightens downwards
    night[90:100, 60:110] = 200  # a lit car
    dusk = np.broadcast_to((y * 90).astype(np.uint8), (120, 160, 3))  # grows light steadily, from black
    assert unchanged(dusk) and unchanged(through_jpeg(dusk))
    assert unchanged(night) and unchanged(through_jpeg(night)) and unchanged(night.transpose(1, 0, 2))
    studio = np.full((120, 160, 3), 255, np.uint8)
    rows_px, columns_px = np.mgrid[:120, :160]
    car = ((rows_px - 70) / 25) ** 2 + ((columns_px - 80) / 65) ** 2 < 1
    studio[car] = scene(120, 160)[car]  # a round body before white
    assert unchanged(studio) and unchanged(through_jpeg(studio))
    lamp = np.full((120, 160, 3), 4, np.uint8)
    lamp[40:60, 50:120] = 180
    assert unchanged(lamp) and unchanged(through_jpeg(lamp))


@pytest.mark.parametrize("level", [0, 8, 128, 255])
def test_a_flat_picture_stays(level: int):
    assert unchanged(np.full((50, 70, 3), level, np.uint8))
    assert unchanged(np.full((1, 1, 3), level, np.uint8))


def test_ordinary_pictures_stay():
    assert all(unchanged(scene(120, 160, seed)) for seed in range(20))
    grey_bars = np.pad(scene(120, 160), ((20, 20), (0, 0), (0, 0)), constant_values=128)
    assert unchanged(grey_bars), "a grey wall is a picture"


@pytest.mark.photos
def test_bars_of_real_photos(photos: Path):
    files = sorted((photos / "dealer").glob("*.jpg"))[::60]
    kept = [remove_letterbox(decode_picture(path)) for path in files]
    assert len(kept) > 50
    assert all(picture.shape[1] >= 120 and 60 <= picture.shape[0] <= 112 for picture in kept), (
        "these have bars above and below"
    )


# ---- crop, resize, grid, PNG ----


def test_crops_are_centred_and_have_the_aspect():
    picture = scene(60, 80)
    assert np.array_equal(crop_to_aspect(picture, 1, 1), picture[:, 10:70])
    assert np.array_equal(crop_to_aspect(picture, 128, 256), picture[10:50])
    assert np.array_equal(crop_to_aspect(picture, 3, 4), picture)
    assert crop_to_aspect(scene(1, 500), 64, 64).shape == (1, 1, 3)


def test_resizing_is_exact_lanczos():
    picture = scene(300, 401)[:, 3:]
    expected = Image.fromarray(np.ascontiguousarray(picture)).resize((64, 48), Image.Resampling.LANCZOS)
    resized = resize_picture(picture, 48, 64)
    assert np.array_equal(resized, np.asarray(expected)) and resized.flags["WRITEABLE"]
    assert resize_picture(picture[:20, :20], 64, 32).shape == (64, 32, 3)


def test_a_grid_places_pictures_row_by_row():
    pictures = np.stack([np.full((4, 6, 3), k, np.uint8) for k in range(5)])
    grid = picture_grid(pictures, 3, gap_px=2)
    assert grid.shape == (10, 22, 3)
    assert (grid[:4, :6] == 0).all() and (grid[:4, 16:] == 2).all() and (grid[6:, 8:14] == 4).all()
    assert (grid[6:, 14:] == 255).all() and (grid[4:6] == 255).all()
    assert np.array_equal(picture_grid(pictures[:1], 1, 0), pictures[0])


def test_a_png_keeps_pixels_and_text_and_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_png(tmp_path / "x.png", scene(), {"recipe": "näh 漢", "step": "7"})
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(np.asarray(image), scene())
        assert image.text == {"recipe": "näh 漢", "step": "7"}  # pyright: ignore[reportAttributeAccessIssue]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_png(tmp_path / "x.png", scene(seed=1))
    monkeypatch.undo()
    assert np.array_equal(decode_picture(tmp_path / "x.png"), scene()) and os.listdir(tmp_path) == ["x.png"]
