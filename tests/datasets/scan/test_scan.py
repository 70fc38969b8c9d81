"""A scan of one file has its hash, sizes, picture, classifier input and thumb, or a reason."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.scan.scan import ScanJob, make_classifier_input, scan
from tests.datasets.stand_in import noise_picture


def write(path: Path, picture: np.ndarray, **options: Any) -> str:
    Image.fromarray(picture).save(path, **options)
    return str(path)


def test_everything_about_a_good_file(tmp_path):
    framed = np.zeros((130, 120, 3), np.uint8)
    framed[20:110] = noise_picture(1)
    path = write(tmp_path / "a.png", framed)
    found = scan(ScanJob(path, 32, 48, input_px=40))
    assert found.reason is None and found.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert (found.size_px, found.inner_px) == ((120, 130), (120, 86))  # lines next to a bar may be blended
    assert found.picture is not None and found.picture.shape == (32, 48, 3)
    seen = found.classifier_input
    assert seen is not None and seen.shape == (40, 40, 3) and seen.min() > 10
    assert found.thumb is not None and found.thumb.shape == (64, 64, 3)
    plain = scan(ScanJob(path, 32, 48))
    assert plain.classifier_input is None and plain.thumb is None
    assert plain.picture is not None and np.array_equal(plain.picture, found.picture)


def test_a_sha256_that_is_not_the_noted_one_is_damage(tmp_path):
    path = write(tmp_path / "a.png", noise_picture(1))
    right = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert scan(ScanJob(path, 32, 32, expected=right)).reason is None
    found = scan(ScanJob(path, 32, 32, expected="0" * 64))
    assert found.picture is None and str(found.reason).startswith("damaged") and found.sha256 == right


def test_no_memory_is_a_reason(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("harness.images.decode._decode", fail)
    assert str(scan(ScanJob(write(tmp_path / "a.png", noise_picture(1)), 32, 32)).reason).startswith("too_large")


@pytest.mark.parametrize("height, width", [(90, 120), (120, 90), (64, 64), (36, 400), (3, 2), (700, 1000)])
def test_the_classifier_input_is_the_whole_picture_padded_with_its_edges(height, width):
    """Red, green, blue and white quarters keep their corners."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = (255, 255, 255)
    square = make_classifier_input(picture, 32)
    assert square.shape == (32, 32, 3) and square.dtype == np.uint8
    corners = [square[0, 0], square[0, -1], square[-1, 0], square[-1, -1]]
    assert [corner.tolist() for corner in corners] == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]


def test_the_classifier_input_keeps_proportions_and_is_not_aliased():
    picture = np.zeros((200, 400, 3), np.uint8)
    picture[:, ::2] = 255  # alternating columns: grey when averaged
    picture[80:120, 180:220] = 0  # 40 x 40
    square = make_classifier_input(picture, 64)
    dark = (square.max(axis=2) < 40).nonzero()
    assert np.ptp(dark[0]) == np.ptp(dark[1])  # still a square
    assert abs(int(square[20, 10, 0]) - 128) < 30
