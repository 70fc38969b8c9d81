"""A run's folder, `runs/<name>/`: config, lock, status, log, statistics and metrics."""

import errno
import json
import os
import platform
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from harness.config.experiment import (
    RUN_CONFIG,
    Config,
    base_name,
    check_kept_config,
    config_differences,
    config_to_dict,
    config_to_yaml,
    finetuned_name,
    read_yaml,
    with_name,
)
from harness.errors import UserError
from harness.files import read_file
from harness.messages import log
from harness.storage.atomic import append_whole, atomic_folder, atomic_write, clean_leftovers, text_to_bytes
from harness.storage.json_files import line_to_json, read_json, read_json_or_none, to_json, utc_now
from harness.storage.lock import hold_lock

# Keys that may change when a run is resumed: no training step depends on them.
FREE_KEYS = (
    "optim.total_steps",
    "data.src",
    "clean.*",  # the resulting set is compared by its hash
    "train.device",
    "train.threads",
    "train.pictures",
    "train.*_every_steps",
    "train.keep_last",
    "train.sample_count",
    "reconstruction.sample_passes",
    "finetune.*",
    "encoder.*",
    "inversion.*",
    "blend.*",
    "engine",
    "evaluate.*",
    "studiogan.*",
)
PACKAGES = ("torch", "numpy", "scipy", "h5py", "pillow", "pyyaml", "pydantic", "safetensors", "scikit-learn")
METRICS = TypeAdapter(dict[str, dict[str, Any]])  # by stage
State = Literal["running", "done", "interrupted", "failed"]


class RunDir:
    """`runs/<name>/`. Use `open` to train and `existing` to read; writing needs `lock()`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_path, self.env_path = self.path / RUN_CONFIG, self.path / "env.json"
        self.status_path, self.lock_path = self.path / "status.json", self.path / "lock.json"
        self.log_path, self.stats_path = self.path / "log.txt", self.path / "stats.jsonl"
        self.facts_path = self.path / "run.json"
        self.noise_path = self.path / "noise.pt"
        self.metrics_path, self.metrics_history_path = self.path / "metrics.json", self.path / "metrics.jsonl"
        self.samples, self.checkpoints = self.path / "samples", self.path / "checkpoints"
        self.config: Config | None = None
        self.allow_config_change = False
        self.opened_at_sec = time.monotonic()

    # ---- opening ----

    @classmethod
    def open(cls, config: Config, root: Path = Path("runs"), allow_config_change: bool = False) -> "RunDir":
        """Creates or finds the run of this config. UserError if it was begun with another config."""
        refuse_other_size(config, root)
        run = cls(Path(root) / config.name)
        run.config, run.allow_config_change = config, allow_config_change
        with translate_disk_errors(run.path):
            for folder in (run.path, run.samples, run.checkpoints):
                folder.mkdir(parents=True, exist_ok=True)
            if not run.config_path.exists():
                if any(run.checkpoints.iterdir()):
                    raise UserError(f"{run.path}: found checkpoints but no config.yaml; move the folder away")
                atomic_write(run.config_path, config_to_yaml(config))
                run.add_fact("id", secrets.token_hex(16))
            elif not os.access(run.path, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied", str(run.path))
        run._changed_keys()
        return run

    @classmethod
    def existing(cls, name: str, root: Path = Path("runs")) -> "RunDir":
        """An existing run, for reading. A UserError lists the existing names."""
        run = cls(Path(root) / name)
        if not run.config_path.is_file():
            names = ", ".join(sorted(p.parent.name for p in Path(root).glob("*/config.yaml"))) or "none yet"
            raise UserError(f"run: found no {run.config_path}, allowed {names} (in {root}), try make train")
        return run

    def read_config(self) -> Config:
        """The run's latest config, named after its folder."""
        return check_kept_config(with_name(read_yaml(self.config_path), self.path.name), str(self.config_path))

    # ---- identity ----

    @property
    def id(self) -> str | None:
        """Identifies this run, whatever its folder is called; its checkpoints have it too. A run of an earlier version
        gets one here; None if it cannot be written."""
        if "id" not in self.facts():
            carried = (read_json_or_none(path) or {} for path in self.checkpoints.glob("step-*/meta.json"))
            known = next((meta["run_id"] for meta in carried if meta.get("run_id")), None)
            with suppress(OSError):
                self.add_fact("id", known or secrets.token_hex(16))
        return self.facts().get("id")

    def facts(self) -> dict[str, Any]:
        """run.json: `id`, and `set_sha256` of a training set that it was bound to later."""
        return read_json_or_none(self.facts_path) or {}

    def add_fact(self, name: str, value: str) -> None:
        atomic_write(self.facts_path, to_json({**self.facts(), name: value}, indent=1) + "\n")

    def _changed_keys(self) -> list[tuple[str, Any, Any]]:
        """(key, run's value, config's value) where they differ; UserError for keys outside FREE_KEYS."""
        assert self.config is not None
        changed = config_differences(config_to_dict(self.read_config()), config_to_dict(self.config))
        bound = [change for change in changed if is_bound(change[0])]
        if bound and not self.allow_config_change:
            lines = [f"  {key}: run has {_shown(old)}, config says {_shown(new)}" for key, old, new in bound]
            head = f"{self.path}: begun with another config; use another name, or add --allow-config-change"
            raise UserError("\n".join([head, *lines]))
        return changed

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The lock for the process that writes; removes leftovers of a killed one, saves a changed config."""
        with ExitStack() as stack:
            with translate_disk_errors(self.path):
                stack.enter_context(hold_lock(self.lock_path, self._log_and_show))
            for folder in (self.path, self.samples, self.checkpoints):
                clean_leftovers(folder)
            if self.config is not None:
                for key, old, new in (changed := self._changed_keys()):
                    self.log(f"config: {key} changed from {_shown(old)} to {_shown(new)}")
                if changed:
                    atomic_write(self.config_path, config_to_yaml(self.config))
            yield

    # ---- status and log ----

    @property
    def elapsed_sec(self) -> float:
        """Monotonic seconds since this process opened the run."""
        return time.monotonic() - self.opened_at_sec

    def write_status(self, state: State, **fields: Any) -> None:
        """status.json: state, step, total_steps (kept if not given), message, updated_at and `fields`."""
        before = self.read_status() or {}
        kept = {key: before.get(key) for key in ("step", "total_steps")}
        status = {"state": state, **kept, "message": "", **fields, "updated_at": utc_now()}
        atomic_write(self.status_path, to_json(status, indent=1) + "\n")

    def read_status(self) -> dict[str, Any] | None:
        """The last status; None if missing or damaged."""
        return read_json_or_none(self.status_path)

    def log(self, text: str) -> None:
        """One line of log.txt: time (UTC), seconds since the run was opened here, text."""
        line = f"{utc_now()} +{self.elapsed_sec:.1f}s {' '.join(text.split())}\n"
        _append(self.log_path, line)

    def _log_and_show(self, text: str) -> None:
        log(f"{self.path}: {text}")
        self.log(text)

    def write_env(self, **fields: Any) -> None:
        """env.json: commit, interpreter, platform, package versions, host and `fields` (the device and more)."""
        env = {
            "git": _git_state(Path(__file__).resolve().parents[2]),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "host": socket.gethostname(),
            "packages": {name: _version(name) for name in PACKAGES},
            "written_at": utc_now(),
        }
        atomic_write(self.env_path, to_json({**env, **fields}, indent=1) + "\n")

    # ---- figures and statistics ----

    def read_metrics(self) -> dict[str, Any]:
        """metrics.json; {} if there is none yet. UserError if it is damaged."""
        return read_json(self.metrics_path, "move it away, it is made again", METRICS) or {}

    def write_metrics(self, key: str, figures: dict[str, Any]) -> None:
        """Atomically sets metrics.json[key] = figures and appends {key: figures} to metrics.jsonl."""
        figures_now = {**self.read_metrics(), key: figures}
        history = read_file(self.metrics_history_path) if self.metrics_history_path.exists() else b""
        atomic_write(self.metrics_history_path, history + to_json({key: figures}).encode() + b"\n")
        atomic_write(self.metrics_path, to_json(figures_now, indent=1) + "\n")

    def append_stats(self, row: dict[str, Any]) -> None:
        """One line of stats.jsonl. Non-finite numbers become null."""
        _append(self.stats_path, to_json(row) + "\n")

    def read_stats(self) -> list[dict[str, Any]]:
        """All complete rows; partial lines are skipped."""
        return [row for row, _ in self._stats_rows() if row is not None]

    def drop_stats_after(self, step: int) -> None:
        """Drops rows past `step`, which will be written again, and partial lines."""
        rows = self._stats_rows()
        kept = [line for row, line in rows if row is not None and row.get("step", step) <= step]
        if len(kept) < len(rows):
            atomic_write(self.stats_path, b"".join(kept))

    def _stats_rows(self) -> list[tuple[dict[str, Any] | None, bytes]]:
        if not self.stats_path.exists():
            return []
        return [(_row_from(line), line) for line in read_file(self.stats_path).splitlines(keepends=True)]


@contextmanager
def new_run(final: Path, config: Config) -> Iterator[RunDir]:
    """A new run's folder, created atomically at the end of the block. It must not exist yet."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(final) as temporary:
        run = RunDir(temporary)
        for folder in (run.samples, run.checkpoints):
            folder.mkdir()
        atomic_write(run.config_path, config_to_yaml(config))
        yield run


def is_bound(key: str) -> bool:
    """Whether a run was made with this key's value, so that it cannot change any more."""
    return not any(fnmatchcase(key, pattern) for pattern in FREE_KEYS)


def refuse_bound_keys(run: Path, kept: Config, changed: Config) -> None:
    """UserError where an override beside `--run` changes what the run was trained with."""
    changes = config_differences(config_to_dict(kept), config_to_dict(changed))
    if bound := [(key, old) for key, old, _ in changes if is_bound(key)]:
        key, old = bound[0]
        raise UserError(
            f"{key}: found a new value, but {run} was trained with {_shown(old)}; beside --run allowed "
            f"{', '.join(FREE_KEYS)}; try --config and --set name=... for a new run"
        )


def refuse_other_size(config: Config, root: Path = Path("runs")) -> None:
    """UserError if the config's run, or the one fine-tuned from it, exists with another picture size."""
    base, size = base_name(config), config.data.img_size
    runs = [RunDir(root / name) for name in dict.fromkeys((base, finetuned_name(config), config.name))]
    others = {run.path: found for run in runs if (found := _picture_size(run)) not in (None, size)}
    if not others:
        return
    path, (height, width) = next(iter(others.items()))
    key = "finetune.from_run" if config.finetune.from_run else "name"
    setting = f"{key}={base}-{config.data.size_name}"
    raise UserError(
        f"{path}: found a run of {height}x{width} pictures, this config's are {size[0]}x{size[1]}. To keep it, use "
        f"another name: --set {setting} (make: OVERRIDE={setting}); the old one resumes with --run "
        f"{path.name} (make: RUN={path.name}). To replace it: rm -r {' '.join(map(str, others))}"
    )


def _picture_size(run: RunDir) -> tuple[int, int] | None:
    """(height, width); None without a readable config: opening the run reports why."""
    try:
        return run.read_config().data.img_size if run.config_path.is_file() else None
    except UserError:
        return None


def _row_from(line: bytes) -> dict[str, Any] | None:
    row = line_to_json(line) if line.endswith(b"\n") else None
    step = row.get("step") if row else None
    return row if isinstance(step, int) and 0 <= step <= 1_000_000_000 else None


def _append(path: Path, line: str) -> None:
    """Appends a whole line; if that fails (full disk), the file is unchanged."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666)
    try:
        append_whole(descriptor, text_to_bytes(line))
    finally:
        os.close(descriptor)


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, default=str)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state(folder: Path) -> dict[str, Any]:
    """{"commit", "dirty"} of our checkout; both None outside one."""

    def git(*words: str) -> str | None:
        try:
            command = ["git", "-C", str(folder), *words]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    commit = git("rev-parse", "HEAD") if top and Path(top).resolve() == folder else None
    changes = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """OSErrors of a run (a full disk, a missing permission) as UserErrors of one line."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(
            f"{folder}: cannot read or write{where}: {error.strerror or error}; what was saved is kept, and the same "
            "command resumes from there once this is fixed"
        ) from error
