"""Test data of the benchmarks: many distinct JPEGs of photo size, damaged and hostile files, set plans."""

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from datasets.pack.recipe import SetPlan
from datasets.procedural.render import render
from datasets.procedural.sets import draw_picture_factors
from harness.config.experiment import load_config

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "configs" / "base.yaml"
WORKERS = 2
BASES = 6  # renders that all pictures are made of
BASE_PX = (480, 640)
MAX_LEVEL = 255
ENCODINGS: dict[str, dict[str, Any]] = {
    "jpg": {"kind": "JPEG", "quality": 88},
    "png": {"kind": "PNG"},
    "webp": {"kind": "WEBP", "quality": 85, "method": 0},
}


def make_plan(name: str, src: Path, size_px: int, *changes: str) -> SetPlan:
    source = [f"data.set={name}", "data.source=folder", f"data.src={src}", f"data.img_size={size_px}"]
    config = load_config(BASE, [*source, *changes])
    return SetPlan.of(config.data, config.clean)


def write_photos(folder: Path, count: int, seed: int, width_px: tuple[int, int] = (300, 1000)) -> None:
    """`count` distinct JPEGs: parts of a few renders with random light, colours and grain."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{index:06d}.jpg"
        if not path.exists():
            path.write_bytes(_photo(seed, index, width_px))


def _photo(seed: int, index: int, width_px: tuple[int, int]) -> bytes:
    rng = np.random.default_rng([seed, index])
    base = _bases()[int(rng.integers(BASES))]
    width = int(rng.integers(width_px[0], width_px[1] + 1))
    height = round(width * float(rng.choice([0.56, 0.67, 0.75])))
    share = rng.uniform(0.5, 1.0)
    left, top = rng.uniform(0, 1 - share, 2) * base.size
    box = (left, top, left + share * base.width, top + share * base.height)
    picture = base.resize((width, height), Image.Resampling.BILINEAR, box=box)
    light = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.tile(_grain(), (height // 256 + 1, width // 256 + 1, 1))[:height, :width]
    levels = np.asarray(Image.blend(picture, light, 0.5)).astype(np.int16) + grain
    stream = io.BytesIO()
    Image.fromarray(levels.clip(0, MAX_LEVEL).astype(np.uint8)).save(stream, "JPEG", quality=88)
    return stream.getvalue()


@cache
def _bases() -> list[Image.Image]:
    draws = [draw_picture_factors("ordinary", 4242, index) for index in range(BASES)]
    return [Image.fromarray(render(factors, *BASE_PX, seed)) for factors, seed in draws]


@cache
def _grain() -> np.ndarray:
    return np.random.default_rng(7).normal(0, 5, (256, 256, 1)).astype(np.int16)


class NoFeatures:
    """A view classifier without cost: inputs are made, features are zeros, and every picture is usable."""

    name, sha256, dim, threshold = "none", "0" * 64, 1, 0.0

    def __init__(self, input_px: int) -> None:
        self.input_px = input_px

    def features(self, inputs: np.ndarray) -> np.ndarray:
        return np.zeros((len(inputs), 1), np.float32)

    def predict(self, features: np.ndarray, views: Any = None) -> Any:
        score, sides = np.ones(len(features), np.float32), np.eye(9, dtype=np.float32)[np.zeros(len(features), int)]
        return SimpleNamespace(ok_score=score, reasons=["not_a_car"] * len(features), view_probs=sides)


# ---- damaged and hostile files ----------------------------------------------------------------------------------


def hostile_files(seed: int, count: int = 500) -> Iterator[tuple[str, bytes, str | None]]:
    """(name, bytes, sha256 before the damage or None), the same for equal seeds."""
    crafted = list(_crafted())
    for index, (name, content) in enumerate(crafted[:count]):
        yield f"{index:03d}_{name}", content, None
    for index in range(len(crafted), count):
        rng = np.random.default_rng([seed, index])
        kind = ("jpg", "png", "webp")[index % 3]
        whole = _saved(Image.fromarray(_small(rng)), **ENCODINGS[kind])
        yield f"{index:03d}_mutated.{kind}", _mutated(whole, rng), _sha256(whole)


def _mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Truncated, with wrong bytes, or with a part missing, doubled or zeroed; never unchanged."""
    damaged = bytearray(content)
    way = int(rng.integers(5))
    place = int(rng.integers(2, len(content) - 24))
    size = int(rng.integers(1, min(len(content) // 8, len(content) - 16 - place)))
    if way == 0:
        damaged = damaged[:place]
    elif way == 1:
        for where in rng.integers(0, len(content), int(rng.integers(1, 12))).tolist():
            damaged[where] ^= int(rng.integers(1, 256))
    elif way == 2:
        del damaged[place : place + size]
    elif way == 3:
        damaged[place:place] = damaged[place : place + size]
    else:
        damaged[place : place + size] = bytes(len(damaged[place : place + size]))
    return bytes(damaged) if bytes(damaged) != content else content[:-2] + b"!!"


def _crafted() -> Iterator[tuple[str, bytes]]:
    """Headers with excessive sizes, other formats under wrong names, and unusual but valid pictures."""
    rng = np.random.default_rng(1)
    picture = Image.fromarray(_small(rng))
    yield "60000x60000.png", png_header(60000, 60000)
    yield "100_megapixels.png", png_header(10000, 10000)
    yield "10000x1.png", _saved(Image.new("RGB", (10000, 1), (90, 120, 40)), "PNG")
    yield "1x1.png", _saved(Image.new("RGB", (1, 1), (90, 120, 40)), "PNG")
    yield "animated.gif", _saved(picture, "GIF", save_all=True, append_images=[picture.rotate(9)])
    yield "gif_named.jpg", _saved(picture, "GIF")
    yield "cmyk.jpg", _saved(picture.convert("CMYK"), "JPEG")
    yield "la.png", _saved(picture.convert("LA"), "PNG")
    palette = picture.convert("P")
    yield "p_alpha.png", _saved(palette, "PNG", transparency=3)
    yield "i16.png", _saved(Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "turned.jpg", _saved(picture, "JPEG", exif=exif.tobytes())
    yield "eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n{ } loop\n"
    yield "psd.jpg", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30000, 30000, 8, 3) + bytes(64)
    yield "fits.jpg", b"SIMPLE  =                    T" + b" " * 50 + b"NAXIS   =                    2" + b" " * 2700
    yield (
        "svg.jpg",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"><image href="file:///"/></svg>',
    )
    yield "html.jpg", b"<html><title>404</title></html>"
    yield "empty.jpg", b""
    yield "zeros.png", bytes(4096)
    yield "bmp_named.png", _saved(picture, "BMP")
    yield "tiff_named.jpg", _saved(picture, "TIFF")
    whole = _saved(picture, "PNG")
    place = whole.index(b"IDAT") + 40
    yield "flipped_bit.png", whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    yield "no_end.png", whole[:-12]
    yield "bomb.png", _png_bomb()


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", body or zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _png_bomb() -> bytes:
    """A text chunk of 64 kB that unpacks to 64 MB."""
    text = b"Comment\0\0" + zlib.compress(bytes(64 * 2**20), 9)
    content = png_header(64, 64, zlib.compress(bytes(64 * (64 * 3 + 1))))
    return content[:33] + _chunk(b"zTXt", text) + content[33:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _small(rng: np.random.Generator) -> np.ndarray:
    """uint8 (72, 96, 3), smooth, with some grain."""
    field = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
    levels = np.asarray(field).astype(np.int16) + rng.integers(-6, 7, (72, 96, 1))
    return levels.clip(0, MAX_LEVEL).astype(np.uint8)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_hostile(folder: Path, seed: int, count: int = 500) -> None:
    """A scraper's folder: files/ and a ledger with the hashes before the damage."""
    (folder / "files").mkdir(parents=True, exist_ok=True)
    with open(folder / "ledger.jsonl", "w") as ledger:
        for name, content, noted in hostile_files(seed, count):
            (folder / "files" / name).write_bytes(content)
            line = {"url": f"https://example.invalid/{name}", "status": "done", "file": f"files/{name}"}
            ledger.write(json.dumps(line | {"sha256": noted or _sha256(content), "source": "list"}) + "\n")
