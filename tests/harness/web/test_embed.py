"""Animated WebP of sweeps, and data URIs."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from harness.web.embed import enlarge, picture_uri, save_sweep_webp, strip_uri


def ramp(count: int, height: int = 8, width: int = 16) -> np.ndarray:
    """uint8 (T, H, W, 3), each brighter than the one before."""
    levels = np.linspace(0, 255, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def webp_frames(path):
    with Image.open(path) as image:
        assert image.format == "WEBP"
        frames, durations = [], []
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            frames.append(np.asarray(image.convert("RGB")).copy())
            durations.append(image.info["duration"])
        return np.stack(frames), durations, image.info["loop"]


def test_a_sweep_goes_there_and_back_for_ever(tmp_path):
    path = tmp_path / "sweep.webp"
    save_sweep_webp(path, ramp(11), width_px=64, frame_ms=100, hold_ms=800)
    frames, durations, loop = webp_frames(path)
    assert frames.shape == (20, 32, 64, 3)  # 11 there, 9 back; enlarged fourfold
    brightness = frames.mean((1, 2, 3))
    assert (np.diff(brightness[:11]) > 10).all() and (np.diff(brightness[10:]) < -10).all()
    assert durations == [800, *[100] * 9, 800, *[100] * 9] and loop == 0


def test_one_frame_is_a_sweep_too(tmp_path):
    save_sweep_webp(tmp_path / "one.webp", ramp(1))
    with Image.open(tmp_path / "one.webp") as image:
        assert image.size == (256, 128)


def test_an_animation_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "sweep.webp"
    save_sweep_webp(path, ramp(3))
    before = path.read_bytes()
    with pytest.raises(AssertionError):
        save_sweep_webp(path, ramp(3).astype(np.float32))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["sweep.webp"]


@pytest.mark.parametrize(("width", "expected"), [(16, 64), (60, 60), (100, 100)])
def test_enlarging_is_by_whole_numbers_and_never_shrinks(width, expected):
    assert enlarge(np.zeros((8, width, 3), np.uint8), 64).shape[1] == expected


def test_pictures_in_a_page_have_the_width_asked_for():
    for uri, size in ((picture_uri(ramp(1)[0], 48), (48, 24)), (strip_uri(ramp(3), 20), (60, 10))):
        kind, content = uri.split(",")
        assert kind == "data:image/webp;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == size
