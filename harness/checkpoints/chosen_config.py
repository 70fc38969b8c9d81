"""The experiment that a command works on: a config's (`--config`), or a run's own (`--run`)."""

from collections.abc import Iterable
from pathlib import Path

from harness.config.experiment import Config, check_config, config_to_dict, load_config
from harness.config.yaml_files import merge, parse_overrides
from harness.errors import UserError
from harness.storage.rundir import RunDir, refuse_bound_keys

READY_MADE = "pretrained"  # the run of the ready-made model


def find_run(name: str, root: Path = Path("runs")) -> RunDir:
    """The run of this name; that of the ready-made model is made where it is missing. UserError without such a run."""
    if name == READY_MADE and not (root / name).exists():
        from harness.checkpoints.pretrained import open_pretrained  # imports torch

        open_pretrained(root)
    return RunDir.existing(name, root)


def chosen_path(config: Path | None, run: str | None) -> Path:
    """`--config` itself, or the config.yaml of the run that `--run` names. UserError when neither or both are given, or
    there is no such run."""
    if config is not None and run is None:
        return config
    if run is None or config is not None:
        found = "both" if run else "neither"
        raise UserError(f"config: found {found} of --config and --run, allowed one, try --config configs/demo.yaml")
    return find_run(run).config_path


def chosen_config(
    config: Path | None, run: str | None, overrides: Iterable[str] | None = (), training: bool = False
) -> Config:
    """The experiment of `chosen_path` with the overrides.

    UserError when an override changes a key that the run of `--run` depends on; with `training` this is left to
    `RunDir.open`.
    """
    path = chosen_path(config, run)
    return load_config(path, overrides or ()) if config else changed_config(RunDir(path.parent), overrides, training)


def to_base_run(run: str | None) -> str | None:
    """`demo-freezed` → `demo`, where that run exists: its folder holds everything that is made with both."""
    base = (run or "").removesuffix("-freezed")
    return base if run and base != run and (Path("runs") / base).is_dir() else run


def changed_config(run: RunDir, overrides: Iterable[str] | None = (), training: bool = False) -> Config:
    """A run's config with the overrides. UserError where they change a key that the run depends on."""
    kept = run.read_config()
    changed = check_config(merge(config_to_dict(kept), parse_overrides(overrides or ())), str(run.config_path))
    if not training:
        refuse_bound_keys(run.path, kept, changed)
    return changed
