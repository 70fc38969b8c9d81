"""Untrusted pictures are decoded as defined or refused with a reason, within limits of time and memory."""

import errno
import io
import os
import resource
import struct
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.images import decode as decode_module
from harness.images.decode import (
    MAX_PARTS,
    MAX_SCAN_PIXELS,
    Fit,
    PictureError,
    centred_box,
    check_png,
    count_jpeg_scans,
    decode,
    decode_picture,
    encode_png,
    fit_image,
    picture_grid,
    read_png_text,
    resize_picture,
    save_png,
)
from harness.images.magic_bytes import is_complete, picture_kind
from tests.harness.pictures import encoded, fit_picture, png_header, scene, without_bars
from tests.harness.sabotage import fail_with

SLUGS = ("unreadable", "format", "too_large", "damaged")


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


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """With one more part behind its header."""
    return png[:33] + struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) + png[33:]


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
    picture = scene(240, 320)
    content = encoded(picture, kind, **options)
    whole, taken = decode_picture(content).astype(int), 0
    for length in range(0, len(content) - 30, max(1, len(content) // 40)):
        try:
            found = decode(content[:length], keep_letterbox=True)
        except PictureError as error:
            assert error.reason.split(":")[0] in ("format", "damaged")
            continue
        rows, taken = found.image.height, taken + 1
        assert rows >= 0.95 * 240 and found.note.startswith("cut short: ") and found.size_px == (320, 240)
        assert np.abs(np.asarray(found.image) - whole[:rows]).max() < 20, "no row is made up"
    assert taken < 10


# ---- bombs ----


@pytest.mark.parametrize("size", [(60000, 60000), (10000, 10000), (7100, 7100), (2_000_000_000, 1)])
@pytest.mark.filterwarnings("error")
def test_a_huge_picture_is_refused_before_it_is_decoded(size: tuple[int, int]):
    content = png_header(*size)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason_of(content).startswith("too_large: ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 50 * 1024


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
def test_a_text_bomb_in_a_png_is_not_unpacked(kind: str):
    packed = zlib.compress(bytes(300_000_000))
    body = {"zTXt": b"bomb\0\0", "iTXt": b"bomb\0\1\0en\0bomb\0", "iCCP": b"bomb\0\0"}[kind] + packed
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.array_equal(decode_picture(with_chunk(encoded(scene()), kind.encode(), body)), scene())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 50 * 1024


def test_a_text_is_read_beside_a_bomb():
    content = encode_png(scene(), {"carforge": "x" * 300_000})
    bomb = b"bomb\0\0" + zlib.compress(bytes(300_000_000))
    assert read_png_text(with_chunk(content, b"zTXt", bomb), "carforge") == "x" * 300_000


def test_many_texts_are_not_all_unpacked(monkeypatch: pytest.MonkeyPatch):
    """A thousand texts of a MiB each in a MiB."""
    unpacked, real = [0], zlib.decompressobj

    class Counted:
        def __init__(self) -> None:
            self.inner = real()

        def decompress(self, content: bytes, most: int) -> bytes:
            found = self.inner.decompress(content, most)
            unpacked[0] += len(found)
            return found

        @property
        def unconsumed_tail(self) -> bytes:
            return self.inner.unconsumed_tail

    monkeypatch.setattr("zlib.decompressobj", Counted)
    content, body = encoded(scene()), b"x\0\0" + zlib.compress(bytes(900_000))
    text = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    assert decode_picture(content[:33] + text * 1000 + content[33:]).shape == scene().shape
    assert 0 < unpacked[0] <= 64 * 2**20, "32 of them, by us and by Pillow"


# ---- what takes long ----


def with_scans(content: bytes, more: int) -> bytes:
    """A JPEG whose last scan comes `more` times again: that says nothing new, and is gone through all the same."""
    scan, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:end] + content[scan:end] * more + content[end:]


def test_scans_are_counted_where_they_are():
    plain, progressive = encoded(scene(), "JPEG"), encoded(scene(), "JPEG", progressive=True)
    assert (count_jpeg_scans(plain), count_jpeg_scans(progressive)) == (1, 10)
    assert count_jpeg_scans(encoded(scene()[..., 0], "JPEG", progressive=True)) == 6
    assert count_jpeg_scans(with_scans(progressive, 33)) == 43
    preview = b"\xff\xe1" + (2 + len(progressive)).to_bytes(2, "big") + progressive
    assert count_jpeg_scans(plain[:2] + preview + plain[2:]) == 1, "those of a preview are not of the picture"
    assert count_jpeg_scans(plain + progressive) == 1, "nor are those of what comes behind it"
    assert count_jpeg_scans(with_scans(plain, 5).replace(b"\xff\xda", b"\xff\xff\xff\xda")) == 6, "padded markers"
    restarts = encoded(scene(400, 400), "JPEG", progressive=True, restart_marker_blocks=1)
    assert restarts.count(b"\xff\xd3") > 100 and count_jpeg_scans(restarts) == 10


def test_a_jpeg_that_passes_over_its_pixels_too_often_is_refused_undecoded(monkeypatch: pytest.MonkeyPatch):
    content = encoded(Image.new("L", (4000, 4000), 90), "JPEG", progressive=True)
    allowed = MAX_SCAN_PIXELS // 4000**2
    refused = with_scans(content, allowed - 5)
    assert len(refused) < 120_000 and count_jpeg_scans(refused) == allowed + 1
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it is decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it is decoded"))
    assert reason_of(refused) == f"too_large: a JPEG of 4000x4000 pixels in {allowed + 1} scans, allowed {allowed}"


def test_as_many_scans_as_are_allowed_are_decoded(monkeypatch: pytest.MonkeyPatch):
    content = encoded(scene(), "JPEG", progressive=True)
    monkeypatch.setattr("harness.images.decode.MAX_SCAN_PIXELS", 60 * 80 * 12)
    assert np.array_equal(decode_picture(with_scans(content, 2)).shape, decode_picture(content).shape)
    assert reason_of(with_scans(content, 3)).startswith("too_large: a JPEG of 80x60 pixels in 13 scans, allowed 12")


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_camera_file_of_50_megapixels_is_taken(options: dict):
    width, height = 8660, 5773
    content = encoded(Image.new("RGB", (width, height), (90, 140, 40)), "JPEG", **options)
    found = decode(content, fast_size=(64, 64))
    assert found.size_px == (width, height) and found.image.size < found.size_px
    assert 2 * count_jpeg_scans(content) * width * height < MAX_SCAN_PIXELS, "and far from the limit"


def test_what_pillow_would_step_through_byte_by_byte_is_refused():
    content = encoded(scene(), "JPEG")
    for padding in (b"\xff", b"\xff\x00", b"\xff\xfe\x00\x02"):
        padding_alone = content[:2] + padding * (MAX_PARTS + 1)
        for padded in (padding_alone, padding_alone + b"\xff" + content[2:]):
            assert reason_of(padded).startswith("damaged: found more than 100,000 parts")
        assert decode_picture(content[:2] + padding * 1000 + content[2:]).shape == scene().shape
    text = struct.pack(">I", 0) + b"teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    assert decode_picture(encoded(scene())[:33] + text * 1000 + encoded(scene())[33:]).shape == scene().shape
    assert reason_of(encoded(scene())[:33] + text * MAX_PARTS + encoded(scene())[33:]).startswith("damaged: found more")


# ---- PNG's own checksums ----


def test_every_damaged_byte_of_a_png_is_found():
    content = encoded(scene(20, 24))
    check_png(content)
    check_png(content + b"what comes after its end is no part of it")
    cut = 0
    for place in range(8, len(content)):
        damaged = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        try:
            assert np.array_equal(decode_picture(damaged), scene(20, 24))  # a length beyond the file: as if it were cut
            cut += 1
        except PictureError as error:
            assert error.reason.startswith("damaged")
    assert cut <= 12, "of the end"


@pytest.mark.parametrize("length", [9, 20, 33, 38])
def test_a_short_png_is_damaged(length: int):
    assert reason_of(encoded(scene(20, 24))[:length]).startswith("damaged: the PNG ends too early")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_png_without_its_last_bytes_is_whole_and_one_without_half_is_damaged(mode: str):
    image = Image.fromarray(scene(100, 120)).convert(mode)
    content = encoded(image)
    expected = decode_picture(content)
    for cut in (1, 5, 12, 13):
        found = decode(content[:-cut], keep_letterbox=True)
        assert np.array_equal(np.asarray(found.image), expected[: found.image.height])
        assert found.image.height >= 95
    assert reason_of(content[: len(content) // 2]).startswith("damaged: cut short: ")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_bytes_is_taken_as_far_as_it_goes(progressive: bool):
    content = encoded(scene(1000, 600), "JPEG", progressive=progressive)
    whole = decode_picture(content).astype(int)
    for cut in (1, 2, 40):
        found = decode(content[:-cut], keep_letterbox=True)
        rows = found.image.height
        assert rows >= 950 and found.note.startswith("cut short: ") and found.size_px == (600, 1000)
        assert np.abs(np.asarray(found.image) - whole[:rows]).max() < 16
    assert reason_of(content[: int(0.9 * len(content))]).startswith("damaged: cut short: ")
    assert reason_of(content[: len(content) // 2]).startswith("damaged: cut short: ")
    assert decode(content).note == ""


def test_what_is_cut_short_and_interlaced_or_broken_inside_is_damaged():
    content = encoded(scene(100, 120), "JPEG")
    assert reason_of(content[:300] + b"\xff\xd9").startswith("damaged")


def test_pixels_that_pillow_would_take_are_not_taken():
    """A wrong checksum of sound data."""
    content = bytearray(encoded(scene()))
    content[content.index(b"IEND") - 5] ^= 1  # of the IDAT before it
    with Image.open(io.BytesIO(content)) as image:
        assert np.asarray(image).shape == scene().shape
    assert reason_of(bytes(content)).startswith("damaged: the checksum")


# ---- bars, and the size of the whole ----


def framed(colour: int, rows: int = 0, columns: int = 0) -> np.ndarray:
    return np.pad(scene(90, 120), ((rows, rows), (columns, columns), (0, 0)), constant_values=colour)


@pytest.mark.parametrize(
    "picture",
    [scene(), scene(160, 60), framed(0, 20), framed(0, 0, 12), framed(255, 9, 15), framed(3, 30)],
    ids=["plain", "tall", "black rows", "black columns", "white all round", "nearly black"],
)
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_decoding_takes_the_bars_off_and_tells_the_size_of_the_whole(picture: np.ndarray, size: tuple[int, int]):
    for content in (encoded(picture), encoded(picture, "JPEG", quality=90)):
        image, size_px = (found := decode(content)).image, found.size_px
        whole = decode_picture(content)
        assert size_px == whole.shape[1::-1] == picture.shape[1::-1]
        assert np.array_equal(np.asarray(image), without_bars(whole))
        fits: tuple[Fit, ...] = ("crop", "pad")
        for fit in fits:
            assert np.array_equal(fit_image(image, *size, fit), fit_picture(whole, *size, fit))


def test_turned_and_shrunk_pictures_tell_their_own_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(encoded(scene(300, 400), "JPEG", exif=exif.tobytes()), fast_size=(32, 32))
    assert found.size_px == (300, 400) and found.image.size < (300, 400)


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


# ---- formats ----


def test_avif_is_read():
    found = decode_picture(encoded(scene(), "AVIF", quality=90)).astype(int)
    assert np.abs(found - scene()).mean() < 3
    assert reason_of(encoded(scene(), "AVIF")[:300]).startswith("damaged: ")


def test_avif_and_heic_are_told_by_their_brands_and_whether_they_end():
    content = encoded(scene(), "AVIF")
    assert picture_kind(content) == "avif" and picture_kind(HEIC) == "heic"
    assert picture_kind(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "avif"
    assert picture_kind(b"\0\0\0\x18ftypmp42\0\0\0\0isomheic") is None, "a video"
    assert is_complete(content, "avif") and not any(is_complete(content[:end], "avif") for end in (9, 100, -1))


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_heic_without_its_extra_is_named_with_what_gets_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    assert reason_of(HEIC) == "format: found heic, which needs the heif extra, try pip install pillow-heif"


def test_heic_is_read_where_its_extra_is():
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif, the heif extra")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(scene())).save(stream, quality=90)
    assert np.abs(decode_picture(stream.getvalue()).astype(int) - scene()).mean() < 6
    assert reason_of(HEIC).startswith("damaged: ")


@pytest.mark.parametrize(
    "content, found",
    [
        (b"GIF89a" + bytes(20), "gif"),
        (b"\xff\x0a" + bytes(20), "jpeg xl"),
        (b"8BPS\0\1" + bytes(20), "psd"),
        (b"\0\0\0\x1cftypisom" + bytes(20), "video"),
        (b"<!doctype html>", "html"),
        (b"", "empty"),
    ],
)
def test_the_reason_names_what_was_found(content: bytes, found: str):
    assert reason_of(content) == f"format: found {found}, allowed JPEG, PNG, WebP, AVIF, HEIC"


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_jpeg_of_more_than_50_megapixels_is_decoded_smaller(options: dict):
    content = encoded(Image.new("RGB", (12_000, 9_000), (90, 140, 40)), "JPEG", **options)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = decode(content)
    assert found.size_px == (12_000, 9_000) and found.image.size == (6000, 4500)
    assert abs(found.image.getpixel((3000, 2000))[1] - 140) < 3  # pyright: ignore
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < (600 if options else 200) * 1024
    assert decode(content, fast_size=(64, 64)).image.size == (1500, 1125)


def test_a_jpeg_of_400_megapixels_is_refused():
    content = bytearray(encoded(scene(), "JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = (20_000).to_bytes(2, "big") * 2
    assert reason_of(bytes(content)) == "too_large: 20000x20000 pixels, allowed 250 megapixels"


# ---- the fast path ----


def test_the_fast_path_decodes_smaller_but_not_too_small():
    content = encoded(scene(640, 960), "JPEG")
    assert decode_picture(content, (64, 64)).shape == (160, 240, 3)
    assert decode_picture(content, (128, 224)).shape == (320, 480, 3)
    assert decode_picture(content, (400, 400)).shape == (640, 960, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(encoded(scene(640, 960), "JPEG", exif=exif), (200, 50)).shape == (480, 320, 3)
    exact = resize_picture(decode_picture(content), 64, 64).astype(int)
    assert np.abs(resize_picture(decode_picture(content, (64, 64)), 64, 64) - exact).mean() < 1
    assert np.array_equal(decode_picture(encoded(scene()), (8, 8)), scene()), "only JPEG has it"


# ---- crop, resize, grid, PNG ----


def test_crops_are_centred_and_have_the_aspect():
    picture = scene(60, 80)
    image = Image.fromarray(picture)
    assert centred_box(60, 80, 1, 1) == (10, 0, 70, 60)
    assert np.array_equal(fit_image(image, 60, 60, "crop"), picture[:, 10:70])
    assert centred_box(60, 80, 128, 256) == (0, 10, 80, 50)
    assert np.array_equal(fit_image(image, 40, 80, "crop"), picture[10:50])
    assert centred_box(60, 80, 3, 4) == (0, 0, 80, 60)
    assert np.array_equal(fit_image(image, 60, 80, "crop"), picture)
    left, top, right, bottom = centred_box(1, 500, 64, 64)
    assert (right - left, bottom - top) == (1, 1)


def test_resizing_is_exact_lanczos():
    picture = scene(300, 401)[:, 3:]
    expected = Image.fromarray(np.ascontiguousarray(picture)).resize((64, 48), Image.Resampling.LANCZOS)
    resized = resize_picture(picture, 48, 64)
    assert np.array_equal(resized, np.asarray(expected)) and resized.flags["WRITEABLE"]
    assert resize_picture(picture[:20, :20], 64, 32).shape == (64, 32, 3)


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_padding_keeps_the_whole_picture_and_fades_its_edges_outwards(turned: bool):
    wide = scene(60, 120)
    wide[:2], wide[:2, 60:] = (200, 40, 40), (40, 200, 40)  # as long as two lines of the result

    def view(picture: np.ndarray) -> np.ndarray:
        return picture.transpose(1, 0, 2) if turned else picture

    whole = view(fit_picture(np.ascontiguousarray(view(wide)), 64, 64, "pad")).astype(int)
    small = view(resize_picture(np.ascontiguousarray(view(wide)), *((64, 32) if turned else (32, 64))))
    assert np.array_equal(whole[16:48], small)
    edge = small[:2].astype(float).mean(axis=0)
    steps = [np.abs(np.diff(line, axis=0)).max() for line in (edge, whole[15], whole[8], whole[0])]
    assert steps == sorted(steps, reverse=True) and steps[-1] < steps[0] / 4  # ever smoother
    assert np.abs(whole[15] - edge).mean() < 6  # no border
    assert np.abs(whole.mean(axis=1)[:16] - edge.mean(axis=0)).max() < 12  # and neither brighter nor darker outwards


def test_padding_what_fits_changes_nothing_and_no_shape_is_too_odd():
    assert np.array_equal(fit_picture(scene(48, 96), 32, 64, "pad"), fit_picture(scene(48, 96), 32, 64, "crop"))
    for height, width in ((1, 500), (500, 1), (1, 1), (127, 128), (33, 47)):
        assert fit_picture(scene(height, width), 32, 48, "pad").shape == (32, 48, 3)


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
    content = (tmp_path / "x.png").read_bytes()
    assert (read_png_text(content, "recipe"), read_png_text(content, "x")) == ("näh 漢", "")
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        save_png(tmp_path / "x.png", scene(seed=1))
    monkeypatch.undo()
    assert np.array_equal(decode_picture(tmp_path / "x.png"), scene()) and os.listdir(tmp_path) == ["x.png"]


def test_few_pictures_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take as much memory as MAX_PIXELS need."""
    content, real, at_work, most = encode_png(np.zeros((8, 8, 3), np.uint8)), decode_module._decode, [], []

    def counted(*words: Any) -> Any:
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.02)
        found = real(*words)
        at_work.pop()
        return found

    monkeypatch.setattr(decode_module, "_decode", counted)
    with ThreadPoolExecutor(12) as hands:
        assert all(found.size_px == (8, 8) for found in hands.map(decode_module.decode, [content] * 24))
    assert max(most) == 2


def test_only_jpegs_that_are_large_enough_are_decoded_smaller() -> None:
    content = encoded(Image.new("RGB", (64, 64)), "JPEG")
    sizes = [decode_module.decode(content, (8, 8), fast_over_px=px).image.size for px in (64 * 64, 64 * 64 - 1)]
    assert sizes == [(64, 64), (16, 16)]
