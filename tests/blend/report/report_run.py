"""Made-up outputs of the stages after training, for tests of the page and to view it.

Pictures come from `draw`, so that real generators can draw them too.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from harness.config.experiment import Config
from harness.images.decode import save_png
from harness.storage.rundir import RunDir
from harness.web.embed import save_sweep_webp

INTENSITIES = [k / 10 for k in range(11)]
Draw = Callable[[int, float], np.ndarray]  # which car, intensity → uint8 (H, W, 3)


def plain_draw(config: Config) -> Draw:
    """Flat pictures, brighter with the intensity, another colour for each car."""
    height, width = config.data.img_size

    def draw(car: int, intensity: float) -> np.ndarray:
        colour = np.array([(50 * car) % 256, 128, int(255 * intensity)], np.uint8)
        return np.broadcast_to(colour, (height, width, 3)).copy()

    return draw


def make_encoder(folder: Path, z_dim: int) -> None:
    run = RunDir(folder / "encoder")
    run.checkpoints.mkdir(parents=True)
    for step in range(0, 400, 20):
        run.append_stats({"step": step, "z_loss": 1.0 - step / 1000, "latent_mse": 1.0 - step / 900})
    run.write_status("done", step=400, total_steps=400)
    explained = [round(0.9 - 0.8 * k / z_dim, 4) for k in range(z_dim)]
    figures = {"latent_mse": 0.7512, "z_dim": z_dim, "explained": explained, "explained_mean": 0.249}
    RunDir(folder).write_metrics("encoder", figures)


def make_inversions(folder: Path, draw: Draw, names: list[str], kind: str = "ordinary") -> None:
    """A target, a worse guess and a better refined picture for each name."""
    targets = np.stack([draw(k, float(kind == "concept")) for k in range(len(names))])
    noise = np.random.default_rng(0).integers(-40, 41, targets.shape)
    guesses, refined = (np.clip(targets + noise // part, 0, 255).astype(np.uint8) for part in (1, 4))
    path = folder / "inversions" / f"{kind}-0123456789ab.safetensors"
    path.parent.mkdir(exist_ok=True)
    tensors = {"targets": targets, "encoder": guesses, "refined": refined}
    safetensors.numpy.save_file(tensors, path, {"inversion": json.dumps({"names": names, "settings": {}})})
    figures = {"encoder": 0.0312, "refined": 0.0078, "mean_picture": 0.0711, "best_of_1000": 0.0345}
    RunDir(folder).write_metrics("inversion", {f"{key}_error": value for key, value in figures.items()})


def make_designs(
    folder: Path, set_name: str, rows: list[dict[str, Any]], pictures: list[np.ndarray], webp: bool = False
) -> None:
    """blends/<set>/: designs.jsonl and a PNG a row; with an animation of all pictures where asked for."""
    made = folder / "blends" / set_name
    made.mkdir(parents=True)
    for row, picture in zip(rows, pictures, strict=True):
        save_png(made / row["file"], picture)
    (made / "designs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if webp:
        save_sweep_webp(made / "sweep.webp", np.stack(pictures))


def design_row(number: int, intensity: float, **changes: Any) -> dict[str, Any]:
    """A row of designs.jsonl, measured; `changes` on top."""
    near = {"set": "cars", "row": number, "distance": 0.4}
    return {
        "file": f"{number:04d}.png",
        "ordinary": f"valid-{number % 7:05d}",
        "concept": f"valid-{number % 5:05d}",
        "seed": None,
        "intensity": intensity,
        "latent_weight": intensity,
        "style": intensity,
        "asked_futurism": None,
        "futurism": 100 * intensity,
        "identity": 100 - 40 * intensity,
        "novelty": {
            "verdict": "PASS",
            "reader": {**near, "percentile": 40.0 + number % 50},
            "discriminator": {**near, "set": "concept", "percentile": 60.0},
        },
        **changes,
    }


def make_sweep(folder: Path, draw: Draw, pairs: int) -> None:
    rows, pictures = [], []
    for pair in range(pairs):
        parents = {"ordinary": f"valid-{pair:05d}", "concept": f"valid-{pair + 1:05d}"}
        for t in INTENSITIES:
            rows.append(design_row(len(rows), t, futurism=5 + (88 + pair % 7) * t, **parents))
            pictures.append(draw(pair, t))
    make_designs(folder, "sweep", rows, pictures)
    first = np.stack(pictures[: len(INTENSITIES)])
    save_sweep_webp(folder / "blends/sweep/sweep.webp", first)
    median = [5 + 85 * t for t in INTENSITIES]
    curve = {
        "intensity": INTENSITIES,
        "reader": median,
        "reader_p10": [max(0.0, value - 12) for value in median],
        "reader_p90": [value + 9 for value in median],
        "probe": [value + 3 for value in median],
    }
    kept = {"ours": {"hue_error": 0.021, "yaw_error": 1.9}, "seed": {"hue_error": 0.113, "yaw_error": 5.2}}
    figures = {"spearman_mean": 0.981, "spearman_worst": 0.87, "rise": 58.3, "pairs": pairs, "curve": curve}
    figures |= {"futurism_miss_probe": 1.1, "futurism_miss_reader": 6.4, "equal_futurism": kept}
    RunDir(folder).write_metrics("blend", figures)


def make_evaluations(folder: Path, values: dict[int, float], **changes: Any) -> None:
    """An evaluation at each step, as `evaluate` keeps them; `fd_reader` is the value."""
    for step, value in values.items():
        row = {
            "checkpoint": f"step-{step:08d}",
            "step": step,
            "figures": {"fd_reader": value, "kid_reader": value / 40, "f1_8_reader": 0.731},
            "left_out": {"recall_reader": "neighbours: found 5 for 4 and 4 pictures"},
            "remark": None,
            "extractor": "reader",
            "set": "cars",
            "split": "valid",
            "data_sha256": "1",
            "count": 1500,
            "real_count": 400,
            **changes,
        }
        RunDir(folder).write_metrics("evaluate", row)


def make_demo_figures(folder: Path) -> None:
    seconds = {"dataset": 41, "train": 281, "finetune": 139, "encoder": 262, "invert": 71, "blend": 88, "gallery": 12}
    stages = {name: {"seconds": value, "cpu_sec": 1.7 * value} for name, value in seconds.items()}
    total = sum(seconds.values())
    figures = {"seconds": total, "cpu_sec": 1.7 * total, "peak_rss_mb": 1210.0, "stages": stages}
    RunDir(folder).write_metrics("demo", figures)
    RunDir(folder).write_metrics("measures", {"probe_auc": 0.997, "background_auc": 0.62, "warn_rate": 0.012})
