"""A view classifier for tests without a network: its predictions follow from colours; helpers to build sets."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from datasets.clean.manual_labels import Decision, change_decisions
from datasets.pack import build_set as stage
from datasets.pack.recipe import SetPlan
from datasets.procedural.factors import FACTOR_NAMES, Factors
from datasets.scan.store import LISTED, ScanStore, key_to_file
from harness.config.experiment import Config, Data, load_config
from harness.config.schema import Clean
from tests.commands import ROOT

DIED = 9
VIEWS = ("left", "right", "front_left", "front_right", "front", "rear", "rear_left", "rear_right", "other")
BASE = ROOT / "configs/base.yaml"


class StandIn:
    """Red pictures are logos, others cars with their nose on the brighter side. `calls`: pictures it has seen."""

    name, sha256, input_px, dim, threshold = "stand_in", "5" * 64, 32, 3, 0.5

    def __init__(self, kind: str = "5") -> None:
        self.sha256, self.calls, self.fitted = kind * 64, 0, []

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """Red over the rest, right minus left brightness, brightness."""
        self.calls += len(inputs)
        levels = inputs.astype(np.float32) / 255
        red = levels[..., 0].mean((1, 2)) - levels[..., 1:].mean((1, 2, 3))
        side = levels[:, :, 20:].mean((1, 2, 3)) - levels[:, :, :12].mean((1, 2, 3))
        return np.stack([red, side, levels.mean((1, 2, 3))], axis=1)

    def predict(self, features: np.ndarray, views: Any = None) -> Any:
        score = np.where(features[:, 0] > 0.2, 0.1, 0.9).astype(np.float32)
        score = 1 - score if self.fitted else score
        sides = np.zeros((len(features), len(VIEWS)), np.float32)
        brighter = np.where(features[:, 1] > 0, VIEWS.index("front_right"), VIEWS.index("front_left"))
        sides[np.arange(len(features)), brighter] = 0.8
        sides[:, VIEWS.index("other")] = 0.2
        return SimpleNamespace(ok_score=score, reasons=["logo"] * len(features), view_probs=sides)

    def fit_labels(self, features: np.ndarray, ok: np.ndarray, views: np.ndarray) -> "StandIn":
        """A classifier with the opposite verdicts."""
        fitted = StandIn()
        fitted.fitted = [features, ok, views]
        self.fitted_with = fitted.fitted
        return fitted


def rows_of(store: ScanStore) -> list[SimpleNamespace]:
    """Every listed file in order, with its ledger line and scan."""
    columns = "source specs url page license author sha256 width height".split()
    query = f"select l.pos, l.key, coalesce(l.fault, s.reason), l.class, {', '.join(columns)} {LISTED}"
    return [
        SimpleNamespace(
            pos=pos, file=key_to_file(key), reason=reason, class_name=None if name is None else os.fsdecode(name),
            **dict(zip(columns, rest, strict=True)),
        )
        for pos, key, reason, name, *rest in store.select(query)
    ]  # fmt: skip


def build_set(data: Data, clean: Clean | None = None, **options: Any) -> list[Path]:
    return stage.build_set(SetPlan.of(data, clean), **options)


def read_manifest(data: Data) -> list[dict[str, Any]]:
    return [json.loads(line) for line in SetPlan.of(data).manifest.read_text().splitlines()]


def write_decision(path: Path, decision: Decision) -> None:
    change_decisions(path, {decision.sha256: decision})


def make_config(*changes: str, **data: Any) -> Config:
    """A folder `photos` at 32 pixels, cleaned; `data`: other keys of data."""
    settings = {"set": "mine", "source": "folder", "src": "photos", "img_size": 32, **data}
    return load_config(BASE, [*(f"data.{key}={json.dumps(value)}" for key, value in settings.items()), *changes])


def died_in_child(work: Callable[[], object], prepare: Callable[[], object]) -> bool:
    """Whether `work` in a forked process was killed before its end; `prepare` runs there first."""
    child = os.fork()
    if child == 0:
        prepare()
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED


def die_at(owner: Any, name: str, point: int, after: bool = False) -> Callable[[], None]:
    """Kills the process at the `point`-th call (from 1) of owner.name, before or after it."""

    def prepare() -> None:
        real, calls = getattr(owner, name), [0]

        def end_here(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == point and not after:
                os._exit(DIED)
            result = real(*arguments, **options)
            if calls[0] == point:
                os._exit(DIED)
            return result

        setattr(owner, name, end_here)

    return prepare


def noise_picture(seed: int, height: int = 90, width: int = 120, nose: str = "left") -> np.ndarray:
    """Smooth noise, brighter on the nose's side, different for each seed: uint8 (height, width, 3)."""
    small = np.random.default_rng(seed).integers(40, 170, (7, 9, 3)).astype(np.int16)
    small[:, :4] += 60 if nose == "left" else 0
    small[:, 5:] += 60 if nose == "right" else 0
    field = Image.fromarray(small.clip(0, 255).astype(np.uint8))
    return np.asarray(field.resize((width, height), Image.Resampling.BICUBIC))


def as_logo(picture: np.ndarray) -> np.ndarray:
    """The picture in the colours that `StandIn` takes for a logo."""
    levels = picture.copy()
    levels[..., 1:] //= 3
    return levels


def make_folder(count: int, logos: int = 0, folder: Path = Path("photos")) -> None:
    """`count` pictures, the first `logos` of them red."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        picture = as_logo(noise_picture(number)) if number < logos else noise_picture(number)
        Image.fromarray(picture).save(folder / f"{number:03d}.png", compress_level=1)


def read_factors(table: Path) -> dict[str, tuple[str, int, Factors]]:
    """`factors.csv` → file name: (kind, picture seed, factors), exactly as drawn."""
    with open(table, newline="") as file:
        return {
            row["file"]: (row["kind"], int(row["seed"]), Factors(**{name: float(row[name]) for name in FACTOR_NAMES}))
            for row in csv.DictReader(file)
        }
