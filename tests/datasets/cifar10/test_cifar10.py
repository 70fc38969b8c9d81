"""CIFAR-10: exact pixels from every form, hostile files refused, downloads resumed and checked."""

import hashlib
import io
import os
import pickle
import re
import tarfile
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.cifar10 import cifar10, download
from datasets.cifar10.pickles import read_batch
from datasets.clean.split import is_valid
from harness.config.experiment import Data
from harness.errors import UserError
from harness.images.decode import resize_picture
from harness.storage.hdf5 import open_packed
from tests.datasets.stand_in import build_set, make_config, read_manifest
from tests.refusals import refused

ROWS = 3


@pytest.fixture(autouse=True)
def quiet_network(monkeypatch):
    """No mirror, no proxy, no pause between tries."""
    monkeypatch.delenv("CARFORGE_CIFAR10_URL", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSE_SEC", 0.0)


def make_data(src: str | None, **changes: Any) -> Data:
    return make_config(**{"set": "cifar10", "source": "cifar10", "src": src, **changes}).data


def built(src: str | None, **changes: Any) -> Data:
    data = make_data(src, **changes)
    build_set(data, workers=0)
    return data


def draw(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def labels_of(count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 10, count).tolist()


def batch_bytes(k: int, **changes: Any) -> bytes:
    """The k-th of the six batches in the published format."""
    planes = draw(ROWS, k).transpose(0, 3, 1, 2).reshape(ROWS, 3072)
    content = {b"batch_label": b"x", b"labels": labels_of(ROWS, k), b"data": planes, b"filenames": [b"a.png"] * ROWS}
    return pickle.dumps({**content, **{key.encode(): value for key, value in changes.items()}}, protocol=2)


def all_batches() -> dict[str, bytes]:
    return {name: batch_bytes(k) for k, name in enumerate(cifar10.BATCHES)}


def make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in all_batches().items():
        (folder / name).write_bytes(content)
    return folder


def add(archive: tarfile.TarFile, name: str, content: bytes, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def make_archive(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in all_batches().items():
            add(archive, f"cifar-10-batches-py/{name}", content)
    return path


def make_npz(path: Path, count: int = 20, **more: Any) -> Path:
    np.savez(path, images=draw(count, 9), labels=np.array(labels_of(count, 9), np.uint8), **more)
    return path


def packed(data: Data, split: Any) -> tuple[np.ndarray, list[int], list[str]]:
    with open_packed(data.hdf5_path(split)) as found:
        return found.read(), found.labels.tolist(), found.class_names


def assert_all_six(data: Data) -> None:
    for split, batches in (("train", range(5)), ("valid", range(5, 6))):
        pictures, labels, names = packed(data, split)
        assert np.array_equal(pictures, np.concatenate([draw(ROWS, k) for k in batches]))
        assert labels == [label for k in batches for label in labels_of(ROWS, k)]
        assert (names[0], names[9], len(names)) == ("airplane", "truck", 10)


def assert_refused(src: str | None, *words: str) -> None:
    with refused(*words):
        built(src)
    assert not list(Path().glob("data/hdf5/**/*.hdf5"))


# ---- what it is made from ----


@pytest.mark.parametrize("form", ["parent", "batches", "archive", "beside", "tar"])
def test_every_form_gives_the_exact_pixels_and_the_official_split(form, capsys):
    if form in ("parent", "batches"):
        found = make_folder(Path("there/cifar-10-batches-py"))
    else:
        Path("there").mkdir()
        found = make_archive(Path("there/cifar-10-python.tar.gz" if form != "tar" else "there/mine.tgz"))
    data = make_data(str(found.parent if form in ("parent", "beside") else found))
    assert build_set(data, workers=0) == [data.hdf5_path("train"), data.hdf5_path("valid")]
    assert_all_six(data)
    message = capsys.readouterr().err
    assert "a part of CIFAR-10: 15 of 50000 training pictures, 3 of 10000 test pictures" in message
    assert ("not the published archive" in message) == (form not in ("parent", "batches"))


def test_manifest_and_attributes_are_like_those_of_other_sets(capsys):
    data = built(str(make_folder(Path("there"))), valid_fraction=0.5)
    lines = read_manifest(data)
    assert [line["file"] for line in lines[:4]] == [f"data_batch_1:{k}" for k in range(3)] + ["data_batch_2:0"]
    assert lines[0]["sha256"] == hashlib.sha256(draw(ROWS, 0)[0].tobytes()).hexdigest()
    assert [line["split"] for line in lines] == ["train"] * 15 + ["valid"] * 3
    with open_packed(data.hdf5_path("train")) as found:
        assert found.attributes["resizer"] == "none" and found.attributes["recipe"]["source"] == "cifar10"
        assert found.attributes["valid_count"] == 3
    before = data.hdf5_path("train").stat().st_mtime_ns
    build_set(data, workers=0, verify=True)
    built(None, valid_fraction=0.5)  # it is there: nothing is downloaded
    assert data.hdf5_path("train").stat().st_mtime_ns == before and "complete" in capsys.readouterr().err
    with pytest.raises(UserError, match="built with other settings"):
        built("elsewhere", valid_fraction=0.5)
    build_set(data, workers=0, rebuild=True)
    assert data.hdf5_path("train").stat().st_mtime_ns > before


def test_other_sizes_are_resized():
    data = built(str(make_folder(Path("there"))), img_size=64)
    assert np.array_equal(packed(data, "train")[0][4], resize_picture(draw(ROWS, 1)[1], 64, 64))


def test_a_subset_with_batch_names_holds_the_test_pictures_out():
    names = np.array(["data_batch_1"] * 12 + ["test_batch"] * 8)
    data = built(str(make_npz(Path("part.npz"), batch=names)))
    assert np.array_equal(packed(data, "train")[0], draw(20, 9)[:12])
    assert np.array_equal(packed(data, "valid")[0], draw(20, 9)[12:])
    assert packed(data, "valid")[1] == labels_of(20, 9)[12:]


def test_a_subset_without_batch_names_is_split_by_hash():
    make_npz(Path("part.npz"))
    data = built(".", valid_fraction=0.3)
    aside = [is_valid(hashlib.sha256(picture.tobytes()).hexdigest(), 0.3) for picture in draw(20, 9)]
    assert 0 < sum(aside) < 20
    assert np.array_equal(packed(data, "valid")[0], draw(20, 9)[aside])
    train = {picture.tobytes() for picture in packed(data, "train")[0]}  # one may come later than it stood
    assert train == {picture.tobytes() for picture in draw(20, 9)[~np.array(aside)]}


# ---- what cannot be used ----


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(os.system, ("touch ran",)), (eval, ("open('ran', 'w')",)), (np.ndarray, ((5,),)), (np.fromfile, ("x",))],
)
def test_a_pickle_runs_nothing(function, arguments):
    folder = make_folder(Path("there"))
    (folder / "data_batch_2").write_bytes(batch_bytes(1, extra=Evil(function, *arguments)))
    assert_refused("there", "data_batch_2", "not a CIFAR-10 batch")
    assert not Path("ran").exists()


def test_the_unpickler_allows_five_names():
    content = pickle.dumps(Evil(io.StringIO), protocol=2)
    with pytest.raises(UserError, match=re.escape("_io.StringIO")):
        read_batch(content, "x")


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [0, 1]},
        {"labels": [0, 1, 10]},
        {"labels": [0, 1, "2"]},
        {"data": np.zeros((3, 3071), np.uint8)},
        {"data": np.zeros((3, 3072), np.float32)},
        {"data": np.zeros((3, 3072), object)},
        {"data": b"x" * 9216},
    ],
)
def test_a_batch_of_another_shape_is_refused(changes):
    with pytest.raises(UserError, match="there: is not a CIFAR-10 batch"):
        read_batch(batch_bytes(0, **changes), "there")


def test_a_truncated_batch_is_refused():
    whole = batch_bytes(0)
    assert read_batch(whole, "there")[0].shape == (3, 32, 32, 3)
    for length in range(0, len(whole), 97):
        with pytest.raises(UserError, match="not a CIFAR-10 batch"):
            read_batch(whole[:length], "there")


def test_an_archive_is_not_unpacked_to_disk():
    """Paths that lead elsewhere, links and devices are skipped; members that are too large are refused."""
    with tarfile.open("bad.tar.gz", "w:gz") as archive:
        for name in ("../slipped", "/slipped", "cifar-10-batches-py/../../slipped", "data_batch_1"):
            add(archive, name, b"x")
        add(archive, "cifar-10-batches-py/data_batch_1", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "cifar-10-batches-py/data_batch_2", b"", type=tarfile.FIFOTYPE)
    assert_refused("bad.tar.gz", "found no cifar-10-batches-py/data_batch_1")
    assert not list(Path("..").glob("**/slipped"))
    with tarfile.open("large.tar.gz", "w:gz") as archive:
        add(archive, "cifar-10-batches-py/data_batch_1", b"x" * 101_000_000)
    assert_refused("large.tar.gz", "101000000 bytes")


def test_a_damaged_archive_is_one_line():
    content = make_archive(Path("a.tar.gz")).read_bytes()
    for damaged in (content[: len(content) // 2], content[:2000] + b"\0" * 50 + content[2050:], b"", b"text"):
        Path("a.tar.gz").write_bytes(damaged)
        assert_refused("a.tar.gz", "a.tar.gz: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": draw(2, 0)}, "found images, allowed images and labels"),
        ({"images": draw(2, 0), "labels": np.zeros(3, np.uint8)}, "for labels (3,)"),
        ({"images": draw(2, 0).astype(float), "labels": np.zeros(2, np.uint8)}, "images float64"),
        ({"images": draw(2, 0), "labels": np.array([0, 10])}, "0 to 10, allowed 0 to 9"),
        ({"images": draw(2, 0), "labels": np.array([Evil(os.system, "touch ran")] * 2)}, "cannot be read as an .npz"),
        (
            {"images": draw(2, 0), "labels": np.zeros(2, int), "batch": np.array(["test_batch"] * 2)},
            "only test pictures",
        ),
    ],
)
def test_an_unsuitable_npz_is_refused(content, message):
    np.savez("part.npz", **content)
    assert_refused("part.npz", message)
    assert not Path("ran").exists()


def test_a_missing_source_is_refused_before_anything_is_written():
    Path("empty").mkdir()
    Path("photo.png").write_bytes(b"x")
    for src in ("empty", "absent", "photo.png"):
        assert_refused(src, "data.src: found", "allowed a folder or file", "SRC=")
    for name in ("a", "b"):
        make_npz(Path(f"empty/{name}.npz"))
    assert_refused("empty", "2 .npz files")
    assert not Path("data").exists()
    with pytest.raises(UserError, match="UNSET_ANYWHERE"):
        built("$UNSET_ANYWHERE/x")


# ---- the network ----


class Server(HTTPServer):
    """Serves one file; `plan`: behaviour for each request in turn, then "ok"."""

    def __init__(self, content: bytes, plan: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.plan, self.ranges = content, plan, []


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        server = self.server
        step = server.plan.pop(0) if server.plan else "ok"
        given = self.headers.get("Range")
        server.ranges.append(given)
        if step == "missing":
            return self.send_error(404)
        begin = int(given.removeprefix("bytes=").rstrip("-")) if given and step != "no ranges" else 0
        content = server.content[begin:] + (b"x" * 5000 if step == "longer" else b"")
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if step == "cut" else content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve(monkeypatch):
    """serve(plan) → a server of a small archive, used as the mirror."""
    with ExitStack() as stack:

        def start(plan: list[str]) -> Server:
            content = make_archive(Path("served.tar.gz")).read_bytes()
            server = stack.enter_context(Server(content, plan))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            monkeypatch.setenv("CARFORGE_CIFAR10_URL", f"http://127.0.0.1:{server.server_port}/a.tar.gz")
            monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(content).hexdigest())
            monkeypatch.setattr(cifar10, "ARCHIVE_BYTES", len(content))
            return server

        yield start


def test_an_interrupted_download_resumes(serve):
    server = serve(["cut", "cut"])
    data = built(None)
    assert_all_six(data)
    half = len(server.content) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + (len(server.content) - half) // 2}-"]
    built(None, set="again", img_size=64)  # the archive is kept: no fourth request
    assert len(server.ranges) == 3 and cifar10.DOWNLOADED.read_bytes() == server.content


def test_the_part_received_is_kept_for_the_next_command(serve):
    server = serve(["cut", "missing", "missing"])
    kept = f"{len(server.content) // 2} of {len(server.content)} bytes are kept"
    assert_refused(None, "404", "the same command resumes", str(cifar10.DOWNLOADED), kept)
    built(None)
    assert server.ranges[-1] == f"bytes={len(server.content) // 2}-"


def test_a_server_without_ranges_restarts_the_download(serve):
    server = serve(["cut", "no ranges"])
    built(None)
    assert cifar10.DOWNLOADED.read_bytes() == server.content and len(server.ranges) == 2


def test_a_wrong_or_longer_file_is_deleted(serve, monkeypatch):
    serve(["longer"])
    assert_refused(None, "sends more than")
    assert not list(cifar10.DOWNLOADED.parent.iterdir())
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", "0" * 32)
    assert_refused(None, "md5")
    assert not list(cifar10.DOWNLOADED.parent.iterdir())


def test_no_network_is_one_line(monkeypatch):
    for url, message in (("http://127.0.0.1:9/a", "cannot be downloaded"), ("file:///etc/passwd", "allowed https://")):
        monkeypatch.setenv("CARFORGE_CIFAR10_URL", url)
        assert_refused(None, message)


# ---- the real pictures ----


def test_real_pictures():
    path = os.environ.get("CARFORGE_CIFAR10")
    if not path:
        pytest.skip("CARFORGE_CIFAR10 is not set (a folder or file with CIFAR-10 or a part of it)")
    data = make_data(path)
    paths = build_set(data, workers=0)
    pictures, labels, names = packed(data, "train")
    assert len(pictures) == len(labels) > 1000 and len(paths) == 2
    assert names[labels[0]] == "frog" and names[labels[1]] == "truck"  # the well-known first two of data_batch_1
