"""Opening pipes, devices and odd names never hangs."""

import os
from pathlib import Path

import pytest

from blend.designs.export import read_documents
from datasets.clean.manual_labels import read_decisions
from harness.config.experiment import load_config
from harness.errors import UserError
from harness.features.weights_file import read_tensors
from harness.files import open_file, read_file
from harness.images.decode import PictureError, decode_picture
from harness.storage.cache import cached
from harness.studiogan.dialects.convert import read_foreign
from scrapers.sites.url_list import UrlList


@pytest.fixture(params=["pipe", "device", "folder"])
def odd(request, tmp_path: Path) -> Path:
    path = tmp_path / "odd.json"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


def test_a_file_is_read_and_what_is_none_is_not(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 70_000)
    assert read_file(tmp_path / "a") == b"x" * 70_000
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "b")
    for path in (odd, "a\0b"):
        before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
        with pytest.raises(OSError, match="pipe, socket or device|directory|null byte"):
            open_file(path)
        after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
        assert after == before, "left open"


READERS = {
    "config": load_config,
    "design": read_documents,
    "decisions": read_decisions,
    "addresses": UrlList,
    "StudioGAN's config": read_foreign,
    "weights": lambda path: read_tensors(path, "x", "it", "try again"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_a_pipe_or_device_is_one_line(reader, odd: Path) -> None:
    with pytest.raises(UserError) as caught:
        reader(odd)
    assert "\n" not in str(caught.value) and "odd.json" in str(caught.value)


def test_a_pipe_is_no_picture_and_no_cache(odd: Path) -> None:
    with pytest.raises(PictureError, match="unreadable"):
        decode_picture(odd)
    if not odd.is_dir():
        assert cached(odd, {"a": 1}, dict) == {} and odd.is_file()
