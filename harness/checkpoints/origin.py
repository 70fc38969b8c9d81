"""Checks that a checkpoint still belongs to its base run and to its training set.

In: checkpoints and packed sets. Out: UserError when the run or the set has been replaced.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.checkpoints.checkpoint import read_meta
from harness.checkpoints.load import LoadedCheckpoint
from harness.config.experiment import Data
from harness.errors import UserError
from harness.messages import log
from harness.storage.hdf5 import open_packed
from harness.storage.rundir import RunDir

SHA_DIGITS = 12  # digits of a sha256 in messages


def check_finetuned_from(base: RunDir, tuned: RunDir, meta: dict[str, Any]) -> None:
    """UserError when `tuned`, with its checkpoint's `meta`, was fine-tuned from another run than `base`.

    Checkpoints of earlier versions have no run id; then the hashes of the source checkpoint decide, if it still exists.
    """
    origin, hashes = meta.get("finetuned_from_id"), meta.get("finetuned_from_sha256")
    if origin is not None:
        same = base.id in (None, origin)
    else:
        source = base.checkpoints / Path(meta.get("finetuned_from") or "none").name
        same = hashes is None or _sha256s(source) in (None, hashes)
    if not same:
        raise UserError(
            f"{tuned.path}: was fine-tuned from another run than the present {base.path} (was it trained again?), "
            f"allowed one fine-tuned from it; move {tuned.path} away and `make finetune` again, or put the old "
            f"{base.path} back"
        )


def _sha256s(checkpoint: Path) -> dict[str, str] | None:
    try:
        return read_meta(checkpoint)["sha256"]
    except ValueError:
        return None


def log_later_step(base: LoadedCheckpoint, tuned: LoadedCheckpoint) -> None:
    """Logs a line if the base run was trained further after the fine-tuning began."""
    digits = Path(tuned.meta.get("finetuned_from") or "").name.removeprefix("step-")
    if digits.isdigit() and int(digits) < base.step:
        log(f"{base.run.path}: at step {base.step}; {tuned.name} was fine-tuned from step {int(digits)}")


# ---- the training set -------------------------------------------------------------------------------------------


def check_training_set(run: RunDir, data: Data, meta: dict[str, Any]) -> None:
    """UserError when the packed training set is not the one in a checkpoint's `meta`, unless the user accepted it.

    A missing set is no error. Imported weights are bound to the first set they are used with.
    """
    trained_on, found = meta.get("data_sha256"), _set_sha256(data)
    if found is None:
        return
    bound_to = run.facts().get("set_sha256")
    if found == bound_to or (found == trained_on and bound_to is None):
        return
    if found == trained_on or (trained_on is None and bound_to is None):
        with suppress(OSError):  # a read-only folder
            run.add_fact("set_sha256", found)
    else:
        raise UserError(
            f"{data.hdf5_path('train')}: found the set {found[:SHA_DIGITS]}, allowed "
            f"{(bound_to or trained_on or '')[:SHA_DIGITS]}, which {run.path} belongs to; try to put that one back, or "
            "to train again under another name. To use this one anyway: --allow-other-set (make: "
            "ARGS=--allow-other-set)"
        )


def accept_training_sets(*names: str, root: Path = Path("runs")) -> None:
    """Binds these runs, if they exist, to the present sets (--allow-other-set); their pages mention it."""
    for run in (RunDir(root / name) for name in names):
        if run.config_path.is_file() and (found := _set_sha256(run.read_config().data)) is not None:
            run.add_fact("set_sha256", found)


def other_training_set_note(run: RunDir, meta: dict[str, Any]) -> str:
    """The note on a run's page if its measures use another set than its training; "" otherwise."""
    bound_to, trained_on = run.facts().get("set_sha256"), meta.get("data_sha256")
    if bound_to is None or trained_on in (None, bound_to):
        return ""
    return (
        f"{run.path.name} is measured with the set {bound_to[:SHA_DIGITS]}, as requested; it was trained on "
        f"{trained_on[:SHA_DIGITS]}."
    )


def _set_sha256(data: Data) -> str | None:
    path = data.hdf5_path("train")
    if not path.is_file():
        return None
    with open_packed(path) as packed:
        return packed.sha256
