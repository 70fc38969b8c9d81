"""The experiment that a command works on: a config's (`--config`), or a run's own (`--run`)."""

from collections.abc import Iterable
from pathlib import Path

from harness.config.experiment import Config, check_config, config_to_dict, load_config
from harness.config.yaml_files import merge, parse_overrides
from harness.errors import UserError
from harness.storage.rundir import RunDir, refuse_bound_keys

PRETRAINED = "pretrained"  # the run of the ready-made model


def chosen_config(
    config: Path | None, run: str | None, overrides: Iterable[str] | None = (), training: bool = False
) -> Config:
    """The experiment of `--config`, or the one that the run of `--run` was made with, with the overrides.

    Raises UserError when neither or both are given, there is no such run, or an override changes a key that the run
    depends on; with `training` this is left to `RunDir.open`.
    """
    if (config is None) == (run is None):
        found = "neither" if config is None else "both"
        raise UserError(f"config: found {found} of --config and --run, allowed one, try --config configs/demo.yaml")
    if run is None:
        assert config is not None
        return load_config(config, overrides or ())
    if run == PRETRAINED and not (Path("runs") / run).exists():
        from harness.checkpoints.pretrained import open_pretrained  # imports torch

        open_pretrained()
    return changed_config(RunDir.existing(run), overrides, training)


def to_base_run(run: str | None) -> str | None:
    """`demo-freezed` → `demo`, where that run is there: the run whose folder holds all that is made with both."""
    base = (run or "").removesuffix("-freezed")
    return base if run and base != run and (Path("runs") / base).is_dir() else run


def changed_config(run: RunDir, overrides: Iterable[str] | None = (), training: bool = False) -> Config:
    """A run's config with the overrides. UserError where they change a key that the run depends on."""
    kept = run.read_config()
    changed = check_config(merge(config_to_dict(kept), parse_overrides(overrides or ())), str(run.config_path))
    if not training:
        refuse_bound_keys(run.path, kept, changed)
    return changed
