"""StudioGAN's packing of the same photos, in its own interpreter: CPU time, and pictures with black bands."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from harness.errors import UserError
from harness.messages import log
from harness.studiogan.checkout import find_checkout, find_python

BLACK_LEVEL, BLACK_LINES = 8, 2  # this many lines at an edge, all this dark, are a bar
BATCH = 100
# Runs in StudioGAN's environment, with the settings of its configuration files.
SCRIPT = """
import json, sys, time, types
sys.path.insert(0, sys.argv[1])
from utils.make_hdf5 import make_hdf5
began = time.process_time()
settings = {"dataset_name": "custom", "data_path": ".", "img_size": int(sys.argv[2]), "chunk_size": int(sys.argv[3]),
            "batch_size4prcsing": int(sys.argv[3]), "compression": False}
make_hdf5(settings, {"num_workers": 0}, "train")
print(json.dumps(time.process_time() - began))
"""


def measure(photos: Path, size_px: int, ours_ms: float, ours: Path) -> Iterator[str]:
    """`ours`: the same photos as packed by this stage."""
    try:
        source, python = find_checkout() / "src", find_python()
    except UserError as error:
        yield f"StudioGAN's make_hdf5: not measured ({error})"
        return
    folder = Path("studiogan")
    pictures = folder / "data" / "CUSTOM" / "train" / "all"
    pictures.mkdir(parents=True, exist_ok=True)
    for path in sorted(photos.iterdir()):
        if not (pictures / path.name).exists():
            os.link(path, pictures / path.name)
    packed = folder / f"custom_{size_px}_train.hdf5"
    packed.unlink(missing_ok=True)
    log("StudioGAN's make_hdf5")
    command = [str(python), "-c", SCRIPT, str(source), str(size_px), str(BATCH)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        yield f"StudioGAN's make_hdf5: ended with {done.returncode}: {done.stderr.strip().splitlines()[-1][:200]}"
        return
    count = len(list(pictures.iterdir()))
    theirs_ms = json.loads(done.stdout.splitlines()[-1]) / count * 1e3
    ratio = ours_ms / theirs_ms
    yield f"StudioGAN's make_hdf5 (bilinear), one process: {theirs_ms:.2f} ms a picture; ours takes {ratio:.2f} x that"
    (black, total), (our_black, our_total) = _count_black(packed), _count_black(ours)
    yield (
        f"StudioGAN's crop reaches beyond the picture: black bands in {black} of {total}; ours: in {our_black} of "
        f"{our_total}"
    )


def _count_black(packed: Path) -> tuple[int, int]:
    """(pictures with a black band, all pictures) of a packed file, ours or StudioGAN's."""
    with h5py.File(packed) as file:
        imgs = np.asarray(file["imgs"][()])  # pyright: ignore[reportIndexIssue]
    edges = (imgs[:, :, :BLACK_LINES], imgs[:, :, -BLACK_LINES:], imgs[..., :BLACK_LINES], imgs[..., -BLACK_LINES:])
    black = np.any([edge.max(axis=(1, 2, 3)) <= BLACK_LEVEL for edge in edges], axis=0)
    return int(black.sum()), len(imgs)
