"""CIFAR-10 (Krizhevsky 2009), pixel-exact: from a folder, an archive, a subset in an .npz, or the network.

In: `data.src`, or null to download. Out: pictures with labels and official splits. Without a test batch the split is
None, and the content hash decides, as for other sets.
"""

import hashlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.cifar10.download import download, file_md5
from datasets.cifar10.pickles import MAX_BYTES, read_batch
from datasets.scan.scan import Scanned
from datasets.scan.store import ListedFile, Split
from harness.config.experiment import Data, expand_path
from harness.errors import UserError
from harness.images.decode import fit_image
from harness.messages import log
from harness.runtime.progress import track

CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"  # $CARFORGE_CIFAR10_URL: a mirror
ARCHIVE_MD5, ARCHIVE_BYTES = "c58f30108f718f92721af3b95e74349a", 170_498_071
ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
DOWNLOADED = Path("data/raw/cifar10") / ARCHIVE
TEST_BATCH = "test_batch"
BATCHES = (*(f"data_batch_{k}" for k in range(1, 6)), TEST_BATCH)
TRAIN_COUNT, TEST_COUNT, SIDE_PX = 50_000, 10_000, 32
MAX_NPZ_BYTES = 1_000_000_000
ALLOWED = f"allowed a folder or file that is or has {FOLDER}/, {ARCHIVE}, or an .npz with images and labels"
TRY = "try SRC=path/to/it after make, or null to download it"


@dataclass(frozen=True)
class CifarBatch:
    """`pictures`: uint8 (N, 32, 32, 3); `labels`: int (N,), 0 to 9; `splits`: a split or None each."""

    name: str
    pictures: np.ndarray
    labels: np.ndarray
    splits: list[Split | None]


def find_source(data: Data) -> Path | None:
    """The folder of batches, archive or .npz named by data.src; None = download."""
    if data.src is None:
        return None
    path = expand_path(data.src)
    if path.is_dir():
        for candidate in (path / FOLDER, path):
            if any((candidate / name).is_file() for name in BATCHES):
                return candidate
        archives = [path / ARCHIVE] if (path / ARCHIVE).is_file() else sorted(path.glob("*.npz"))
        if len(archives) != 1:
            found = f"{len(archives)} .npz files" if archives else "none"
            raise UserError(f"data.src: found {found} in {path}, {ALLOWED}, {TRY}")
        return archives[0]
    if not path.is_file():
        raise UserError(f"data.src: found nothing at {path}, {ALLOWED}, {TRY}")
    if not path.name.endswith((".npz", ".tar.gz", ".tgz", ".tar")):
        raise UserError(f"data.src: found the file {path}, {ALLOWED}, {TRY}")
    return path


def read_cifar10(data: Data) -> Iterator[tuple[ListedFile, Scanned, Split | None]]:
    """Every picture at the set's size, in the published order."""
    source = find_source(data) or _downloaded()
    if source.is_dir():
        batches = _read_folder(source)
    else:
        batches = _read_npz(source) if source.suffix == ".npz" else _read_archive(source)
    counts = {split: sum(batch.splits.count(split) for batch in batches) for split in ("train", "valid")}
    total = sum(len(batch.pictures) for batch in batches)
    if total == counts["valid"]:
        raise UserError(f"data.src: found only test pictures in {source}, {ALLOWED}, {TRY}")
    if (total - counts["valid"], counts["valid"]) != (TRAIN_COUNT, TEST_COUNT):
        log(
            f"{source} is a part of CIFAR-10: {total - counts['valid']} of {TRAIN_COUNT} training pictures, "
            f"{counts['valid']} of {TEST_COUNT} test pictures"
        )
    yield from track((row for batch in batches for row in _rows(batch, data)), total, f"packing {data.set}")


def _downloaded() -> Path:
    hint = f"put the archive at {DOWNLOADED} by hand, or name a local one with SRC="
    url = os.environ.get("CARFORGE_CIFAR10_URL") or URL
    return download(url, DOWNLOADED, ARCHIVE_BYTES, ARCHIVE_MD5, hint)


def _rows(batch: CifarBatch, data: Data) -> Iterator[tuple[ListedFile, Scanned, Split | None]]:
    for k, (picture, label, split) in enumerate(zip(batch.pictures, batch.labels, batch.splits, strict=True)):
        found = ListedFile("", f"{batch.name}:{k}", CLASS_NAMES[int(label)])
        sha256 = hashlib.sha256(picture.tobytes()).hexdigest()
        yield found, Scanned(_fit(picture, *data.img_size), None, sha256, (SIDE_PX, SIDE_PX)), split


def _fit(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Without removing letterbox bars: the pictures are published as they are."""
    if (height, width) == picture.shape[:2]:
        return picture
    return fit_image(Image.fromarray(picture), height, width, "crop")


# ---- folder, archive, npz ----


def _read_folder(folder: Path) -> list[CifarBatch]:
    batches = []
    for name in BATCHES:
        path = folder / name
        if not path.is_file():
            continue
        with open(path, "rb") as stream:
            batches.append(_batch(name, stream.read(MAX_BYTES + 1), str(path)))
    return batches


def _read_archive(path: Path) -> list[CifarBatch]:
    """Reads the six batches without unpacking anything to disk."""
    if file_md5(path) != ARCHIVE_MD5:
        log(f"{path}: is not the published archive (its md5 is not {ARCHIVE_MD5}); its batches are used all the same")
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if member.size > MAX_BYTES:
                    raise UserError(f"{path}: found {member.name[:80]} of {member.size} bytes, {ALLOWED}, {TRY}")
                name = member.name.removeprefix(f"{FOLDER}/")
                if member.isreg() and name in BATCHES and member.name != name:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    contents[name] = stream.read()
                if len(contents) == len(BATCHES):
                    break
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as an archive ({reason}), {ALLOWED}, {TRY}") from error
    if not contents:
        raise UserError(f"{path}: found no {FOLDER}/data_batch_1 in it, {ALLOWED}, {TRY}")
    return [_batch(name, contents[name], f"{path}: {name}") for name in BATCHES if name in contents]


def _batch(name: str, content: bytes, origin: str) -> CifarBatch:
    pictures, labels = read_batch(content, origin)
    split: Split = "valid" if name == TEST_BATCH else "train"
    return CifarBatch(name, pictures, labels, [split] * len(labels))


def _read_npz(path: Path) -> list[CifarBatch]:
    """A subset: `images` uint8 (N, 32, 32, 3), `labels` (N,), optionally `batch` (N,), the name of each one's batch."""
    try:
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(entry.file_size for entry in archive.infolist())
        if size_bytes > MAX_NPZ_BYTES:
            raise UserError(f"{path}: found {size_bytes} bytes unpacked, allowed {MAX_NPZ_BYTES}, {TRY}")
        with np.load(path, allow_pickle=False) as content:
            lacking = [key for key in ("images", "labels") if key not in content.files]
            if lacking:
                raise UserError(f"{path}: found {', '.join(content.files)}, allowed images and labels, {TRY}")
            pictures, labels = content["images"], content["labels"]
            names = content["batch"] if "batch" in content.files else None
    except UserError:
        raise
    except Exception as error:  # untrusted bytes: numpy and zipfile raise nearly anything
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: cannot be read as an .npz ({reason}), {ALLOWED}, {TRY}") from error
    _check_npz(path, pictures, labels, names)
    tests = np.zeros(len(labels), bool) if names is None else names == TEST_BATCH
    train: Split | None = "train" if tests.any() else None
    return [CifarBatch(path.stem, pictures, labels, ["valid" if test else train for test in tests])]


def _check_npz(path: Path, pictures: np.ndarray, labels: np.ndarray, names: np.ndarray | None) -> None:
    count = len(labels) if labels.ndim == 1 else 0
    if pictures.dtype != np.uint8 or pictures.shape != (count, SIDE_PX, SIDE_PX, 3) or not count:
        found = f"images {pictures.dtype} {pictures.shape} for labels {labels.shape}"
        raise UserError(f"{path}: found {found}, allowed uint8 (N, 32, 32, 3) for (N,), {TRY}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
        raise UserError(f"{path}: labels: found {labels.dtype} {labels.min()} to {labels.max()}, allowed 0 to 9, {TRY}")
    if names is not None and (names.shape != (count,) or names.dtype.kind != "U"):
        raise UserError(f"{path}: batch: found {names.dtype} {names.shape}, allowed a name for each picture, {TRY}")
