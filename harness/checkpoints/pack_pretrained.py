"""`python -m harness.checkpoints.pack_pretrained`: packs a finished run as the repository's ready-made model.

In: a base run and the run fine-tuned from it, with their sets. Out: `harness/weights/pretrained/`. In two steps,
because half precision changes the weights a little and measures depend on them:

    python -m harness.checkpoints.pack_pretrained weights
    (in another folder with the same sets, where the packed runs are opened)
    make invert measure blend CONFIG=configs/pretrained.yaml; make encoder CONFIG=...; make evaluate RUN=pretrained
    python -m harness.checkpoints.pack_pretrained measures --root that-folder/runs
"""

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import safetensors.torch
import torch
import typer
from PIL import Image
from torch import Tensor

from harness.checkpoints.checkpoint import load_weights, read_meta
from harness.checkpoints.load import LoadedCheckpoint, find_checkpoint, load_run, load_sampler
from harness.checkpoints.pretrained import BASE, FACTS_FILE, PRETRAINED, TUNED
from harness.cli import make_app, run_command
from harness.config.schema import Data
from harness.errors import UserError
from harness.images.decode import picture_grid, save_png
from harness.runtime.rng import RandomStreams
from harness.storage.atomic import atomic_write
from harness.storage.hdf5 import open_packed, spread_rows
from harness.storage.json_files import read_json
from harness.storage.rundir import RunDir

# Networks for sampling, encoding and further training; no training starts from the tuned run.
NETWORKS = {BASE: ("generator", "encoder", "discriminator", "feature_heads"), TUNED: ("generator", "encoder")}
# Samples of each run for regression tests, one row per run.
DRAWN_FILE, DRAWN_COUNT, DRAWN_SEED = "drawn.png", 2, 2026
PARENTS, SHEET_COLUMNS, JPEG_QUALITY = 24, 4, 90
KEPT_METRICS = ("encoder", "inversion", "blend", "measures", "evaluate")

app = make_app("Packs a finished run as the ready-made model.")
RootOption = Annotated[Path, typer.Option(help="The folder of runs.")]
OutOption = Annotated[Path, typer.Option(help="Where the model is packed.")]


@app.command()
def weights(root: RootOption = Path("runs"), out: OutOption = PRETRAINED) -> None:
    """Networks in half precision (moving averages if there are any), configs and pictures of a gallery."""
    if out.exists():
        shutil.rmtree(out)
    facts: dict[str, Any] = {"runs": {}, "sets": {}, "metrics": {}}
    for name, networks in NETWORKS.items():
        run = RunDir.existing(name, root)
        folder = find_checkpoint(run.checkpoints)
        meta = read_meta(folder)
        for network in networks:
            stored = f"{network}_ema" if (folder / f"{network}_ema.safetensors").exists() else network
            content = safetensors.torch.save(_to_half(load_weights(folder, stored)))
            _write(out / name / f"{network}.safetensors", content)
        data = run.read_config().data
        facts["runs"][name] = _run_facts(run, meta)
        facts["sets"][data.set] = _pack_parents(data, meta["class_names"], out)
    _write_facts(out, facts)


@app.command()
def measures(root: RootOption = Path("runs"), out: OutOption = PRETRAINED) -> None:
    """Cached measures of the training sets and metrics.json, from the packed runs as opened in `root`."""
    run, facts = RunDir.existing(BASE, root), read_json(out / FACTS_FILE)
    if facts is None:
        raise UserError(f"{out}: found no {FACTS_FILE}; pack the weights first")
    for path in sorted((run.path / "measures").glob("*.*")):
        _write(out / "measures" / path.name, path.read_bytes())
    drawn = np.concatenate([draw_for_comparison(load_run(name, root)) for name in NETWORKS])
    save_png(out / DRAWN_FILE, picture_grid(drawn, DRAWN_COUNT, gap_px=0))
    found = run.read_metrics()
    _write_facts(out, {**facts, "metrics": {key: found[key] for key in KEPT_METRICS if key in found}})


def draw_for_comparison(loaded: LoadedCheckpoint) -> np.ndarray:
    """uint8 (DRAWN_COUNT, H, W, 3): of fixed latents."""
    latents = loaded.generator.latents
    z, y = latents.draw(RandomStreams(DRAWN_SEED, torch.device("cpu")), "compare", 0, DRAWN_COUNT)
    return load_sampler(loaded).draw(z, y)


def _run_facts(run: RunDir, meta: dict[str, Any]) -> dict[str, Any]:
    rows, env = run.read_stats(), read_json(run.env_path) or {}
    every = run.read_config().train.log_every_steps
    kept = ("step", "num_classes", "class_names", "data_sha256", "config", "finetuned_from")
    seconds = round(sum(row.get("sec_per_step", 0.0) for row in rows) * every)
    made = {"seconds": seconds, "machine": env.get("device"), "commit": env.get("git", {}).get("commit")}
    return {**{key: meta[key] for key in kept if key in meta}, **made}


def _pack_parents(data: Data, class_names: list[str], out: Path) -> dict[str, Any]:
    path = data.hdf5_path("valid")
    with open_packed(path) as packed:
        pictures = packed.read(spread_rows(packed.count, PARENTS))
    buffer, name = io.BytesIO(), f"parents/{data.set}.jpg"
    grid = np.ascontiguousarray(picture_grid(pictures, SHEET_COLUMNS, gap_px=0))
    Image.fromarray(grid).save(buffer, "JPEG", quality=JPEG_QUALITY)
    _write(out / name, buffer.getvalue())
    return {"path": str(path), "img_size": list(data.img_size), "class_names": class_names, "sheet": name}


def _to_half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content)


def _write_facts(out: Path, facts: dict[str, Any]) -> None:
    """pretrained.json, with the sha256 of all other files."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != FACTS_FILE)
    hashes = {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    atomic_write(out / FACTS_FILE, json.dumps({**facts, "sha256": hashes}, indent=1) + "\n")


if __name__ == "__main__":
    run_command(app)
