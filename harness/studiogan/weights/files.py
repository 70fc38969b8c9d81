"""StudioGAN's checkpoint files: finding, reading (without running code in them) and writing them.

Both versions write `model={G,D,G_ema}-{current,best}-weights-step={N}.pth`. LeCam's anchors, which 0.2.0 does not have,
are in `lecam-step={N}.pt` next to them.
"""

import io
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from harness.checkpoints.wrappers import without_wrappers
from harness.errors import UserError, reason_of
from harness.storage.atomic import atomic_write

When = Literal["current", "best"]
NETWORKS = {"G": "generator", "G_ema": "generator_ema", "D": "discriminator"}
_STEP_IN_NAME = re.compile(r"step=(\d+)\.pth$")
# 0.2.0 stores its best FID as a numpy scalar. Only these names are allowed besides torch's own.
_make_scalar = np.float64(0).__reduce__()[0]
_NUMPY_NAMES: list[Any] = [
    _make_scalar,
    (_make_scalar, "numpy.core.multiarray.scalar"),  # numpy 1
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)),
]


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A checkpoint of StudioGAN in memory; keys of both dicts: "G", and "D" and "G_ema" if there are such files.

    Attributes:
        contents: of each file; always has `state_dict`.
    """

    step: int
    files: dict[str, Path]
    contents: dict[str, dict[str, Any]]
    lecam: dict[str, Tensor | None] | None = field(default=None)

    def state_dict(self, letter: str) -> dict[str, Tensor]:
        return self.contents[letter]["state_dict"]

    def fact(self, key: str) -> Any:
        """`seed`, `run_name` and the like, from D, where both versions store them, or G; None if neither has it."""
        return next((c[key] for c in (self.contents.get("D", {}), self.contents["G"]) if c.get(key) is not None), None)


def file_name(letter: str, when: When, step: int) -> str:
    return f"model={letter}-{when}-weights-step={step}.pth"


def read_foreign_checkpoint(source: Path, when: When = "current") -> ForeignCheckpoint:
    """The newest checkpoint of a folder, or a single generator file. UserError when files are missing or wrong."""
    files = {"G": source} if source.is_file() else find_files(source, when)
    contents = {letter: read_pth(path) for letter, path in files.items()}
    named = _STEP_IN_NAME.search(files["G"].name)
    steps = {letter: content["step"] for letter, content in contents.items() if "step" in content}
    if len(set(steps.values())) > 1:
        raise UserError(f"{source}: found files of different steps ({steps}), allowed those of one save, try another")
    step = next(iter(steps.values()), int(named[1]) if named else 0)
    lecam = _read_lecam(files["G"].parent / f"lecam-step={step}.pt") or _lecam_of_040(contents.get("D", {}))
    return ForeignCheckpoint(step, files, contents, lecam)


def find_files(folder: Path, when: When) -> dict[str, Path]:
    """{"G": file, ...} of G's newest step, with the other networks' files of that step."""
    found = {}
    for path in folder.glob(f"model=G-{when}-weights-step=*.pth"):
        if named := _STEP_IN_NAME.search(path.name):
            found[int(named[1])] = path
    if not found:
        there = ", ".join(sorted(path.name for path in folder.glob("*.pth"))) or "no .pth file"
        raise UserError(
            f"{folder}: found {there}, allowed a generator's file or a folder with model=G-{when}-weights-step=N.pth, "
            "try the checkpoint folder of StudioGAN's run"
        )
    step = max(found)
    paths = {letter: folder / file_name(letter, when, step) for letter in NETWORKS}
    return {letter: path for letter, path in paths.items() if path.is_file()}


def read_pth(path: Path) -> dict[str, Any]:
    """A dict with `state_dict`; a bare state dict is wrapped. Anything but data is refused and never run."""
    content = _load(path)
    if isinstance(content, dict) and "state_dict" not in content and content and _are_tensors(content):
        content = {"state_dict": content}
    if not isinstance(content, dict) or not _are_tensors(content.get("state_dict")):
        raise UserError(f"{path}: found no state_dict of tensors in it, allowed a network's weights, try another file")
    content = {**content, "state_dict": without_wrappers(content["state_dict"])}
    step = content.get("step", 0)
    if type(step) is not int or step < 0:
        raise UserError(f"{path}: found step {step!r}, allowed a whole number, try another copy")
    if content.get("optimizer") is not None and not _is_optimizer(content["optimizer"]):
        raise UserError(f"{path}: found an optimizer without state and param_groups, allowed Adam's, try another copy")
    return content


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_NUMPY_NAMES):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}), try another path") from error
    except Exception as error:  # a damaged file raises nearly anything
        named = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if named:
            raise UserError(
                f"{path}: found {named[1]} in it, which is not data; nothing in it was run. Allowed tensors and "
                "plain values, try a file that StudioGAN saved"
            ) from None
        raise UserError(f"{path}: is damaged or not a weights file ({reason_of(error)}), try another copy") from error


def _are_tensors(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


def _is_optimizer(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("state"), dict):
        return False
    groups = value.get("param_groups")
    return (
        isinstance(groups, list)
        and all(isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups)
        and all(isinstance(entry, dict) for entry in value["state"].values())
    )


# ---- LeCam's anchors ----------------------------------------------------------------------------------------------

_EMA_START = 7777  # 0.4.0's initial value of its averages


def _read_lecam(path: Path) -> dict[str, Tensor | None] | None:
    if not path.is_file():
        return None
    content = _load(path)
    keys = {"ema_real", "ema_fake"}
    if (
        not isinstance(content, dict)
        or set(content) != keys
        or not all(value is None or isinstance(value, Tensor) for value in content.values())
    ):
        raise UserError(f"{path}: found no pair of LeCam anchors, allowed {sorted(keys)}, try without this file")
    return content


def _lecam_of_040(discriminator: dict[str, Any]) -> dict[str, Tensor | None] | None:
    averages = discriminator.get("lecam_emas")
    if not isinstance(averages, dict) or not {"D_real", "D_fake"} <= set(averages):
        return None
    real, fake = averages["D_real"], averages["D_fake"]
    if not all(isinstance(value, int | float) for value in (real, fake)) or real == fake == _EMA_START:
        return None
    return {"ema_real": torch.tensor(float(real)), "ema_fake": torch.tensor(float(fake))}


def lecam_to_040(anchors: dict[str, Tensor | None] | None, decay: float, start_iter: int) -> dict[str, float]:
    """The averages that 0.4.0 stores with D. It has none for single pictures of the batch (`gsrgan`)."""
    averages: dict[str, float] = dict.fromkeys(("G_loss", "D_loss_real", "D_loss_fake", "D_real", "D_fake"), _EMA_START)
    for theirs, ours in (("D_real", "ema_real"), ("D_fake", "ema_fake")):
        anchor = (anchors or {}).get(ours)
        if anchor is not None and anchor.dim() == 0:
            averages[theirs] = float(anchor)
    return {**averages, "decay": decay, "start_itr": start_iter}


# ---- writing ------------------------------------------------------------------------------------------------------


def write_pth(path: Path, content: dict[str, Any]) -> None:
    """Atomic. `content` may only hold tensors and plain values, so that it loads with weights_only."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write(path, buffer.getvalue())
