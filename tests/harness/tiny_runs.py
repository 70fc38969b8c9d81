"""Runs of a few steps on a tiny packed set, in this process or in a child, and how two of them are compared."""

import errno
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import torch

import harness.checkpoints.sampling
import harness.native.train
from harness.config.experiment import Config, load_config
from harness.native.state import build_training, open_training_set
from harness.native.step import Training
from harness.runtime.device import prepare_hardware
from harness.runtime.dist import World
from harness.storage.hdf5 import PackedWriter
from tests.conftest import ROOT

BASE = ROOT / "configs/base.yaml"
COUNT = 40
# Everything that makes a step hard to repeat is on: accumulation, two D updates, EMA, LeCam (acting), DiffAugment.
TINY: dict[str, Any] = {
    "name": "tiny",
    "data.set": "tiny",
    "data.count": COUNT,
    "data.img_size": 32,
    "model.z_dim": 8,
    "model.g_conv_dim": 4,
    "model.d_conv_dim": 4,
    "model.g_ema_decay": 0.9,
    "model.g_ema_start": 2,
    "loss.lecam_ema_start_iter": 1,
    "optim.batch_size": 4,
    "optim.acml_steps": 2,
    "optim.d_updates_per_step": 2,
    "optim.total_steps": 12,
    "train.device": "cpu",
    "train.precision": "fp32",
    "train.threads": 1,
    "train.log_every_steps": 3,
    "train.sample_every_steps": 4,
    "train.save_every_steps": 5,
    "train.sample_count": 4,
    "finetune.override": {"data": {"set": "other"}, "optim": {"g_lr": 1e-3, "total_steps": 6}},
}
ONE_UPDATE: dict[str, Any] = {"optim__acml_steps": 1, "optim__d_updates_per_step": 1}
FOUR_STEPS: dict[str, Any] = {"optim__total_steps": 4, "train__save_every_steps": 2, "train__log_every_steps": 2}
SHORT = FOUR_STEPS | ONE_UPDATE
CONDITIONAL: dict[str, Any] = {"model__g_cond_mtd": "cBN", "model__d_cond_mtd": "PD"}
RECONSTRUCTION: dict[str, Any] = {
    "model__backbone": "subpixel",
    "model__g_conv_dim": 8,
    "model__d_conv_dim": 8,
    "optim__d_updates_per_step": 1,
    "reconstruction__apply": True,
    "reconstruction__features": "reader",
    "reconstruction__encoder_width": 8,
    "reconstruction__warmup_steps": 2,
    "reconstruction__adversarial_every_steps": 1,
}


def write_set(
    name: str,
    *,
    seed: int = 0,
    size: int = 32,
    width: int = 0,
    count: int = COUNT,
    split: str = "train",
    classes: int = 2,
) -> Path:
    """A packed set of smooth random pictures in two classes (of which `classes` have any), in the working directory.

    `size`: the height, and the width unless that is given too.
    """
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    pictures = np.kron(coarse, np.ones((1, size // 4, (width or size) // 4, 1), np.uint8))
    path = Path(f"data/hdf5/{name}/custom_{f'{size}x{width}' if width else size}_{split}.hdf5")
    return pack_pictures(path, pictures, np.arange(count) % classes)


def pack_pictures(
    path: Path, pictures: np.ndarray, labels: np.ndarray, class_names: Sequence[str] = ("ordinary", "concept")
) -> Path:
    """A packed set of these pictures, uint8 (N, H, W, 3), and labels."""
    with PackedWriter(path, pictures.shape[1], pictures.shape[2], list(class_names), {"made_by": "tests"}) as writer:
        for picture, label in zip(pictures, labels, strict=True):
            writer.append(picture, int(label))
    return path


def pack_cars(config: Config, pictures: np.ndarray, train_count: int) -> None:
    """The sets of a config, without classes: so many pictures to train on, the others held out."""
    for split, rows in zip(("train", "valid"), np.split(pictures, [train_count]), strict=True):
        pack_pictures(config.data.hdf5_path(split), rows, np.zeros(len(rows)), ["cars"])


def overrides_of(settings: dict[str, Any] = TINY, /, **changes: Any) -> list[str]:
    """`--set` texts: settings with changes; `__` in a name stands for the dot."""
    values = settings | {key.replace("__", "."): value for key, value in changes.items()}
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def tiny_config(settings: dict[str, Any] = TINY, /, **changes: Any) -> Config:
    """These settings with changes; `__` in a name stands for the dot."""
    return load_config(BASE, overrides_of(settings, **changes))


@contextmanager
def training(world: World | None = None, /, **changes: Any) -> Iterator[Training]:
    """A run that is built and has not begun."""
    config = tiny_config(**changes)
    run = build_training(config, prepare_hardware(config.train), world or World(), open_training_set(config))
    try:
        yield run
    finally:
        run.source.close()


def make_config(*overrides: str, file: str = "base.yaml") -> Config:
    """A shipped config with `--set` texts, as a run named `run`."""
    return load_config(BASE.with_name(file), ["name=run", *overrides])


# ---- what runs leave --------------------------------------------------------------------------------------------

RUN = Path("runs/tiny")
SHORT_LAST = RUN / "checkpoints/step-00000004"


def status(name: str = "tiny") -> dict[str, Any]:
    return json.loads((Path("runs") / name / "status.json").read_text())


def checkpoint_names(name: str = "tiny") -> list[str]:
    return sorted(path.name for path in (Path("runs") / name / "checkpoints").iterdir())


def rows_logged(name: str = "tiny") -> list[dict[str, Any]]:
    """Every line of stats.jsonl, none of which may be half a line."""
    return [json.loads(line) for line in (Path("runs") / name / "stats.jsonl").read_text().splitlines()]


def steps_logged(name: str = "tiny") -> list[int]:
    return [row["step"] for row in rows_logged(name)]


# ---- comparing --------------------------------------------------------------------------------------------------


def file_hashes(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_same_state(one: Any, other: Any, where: str = "state") -> None:
    """Nested dicts and lists of tensors and values, bit for bit; tensors are laid out alike too."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same_state(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_state(a, b, f"{where}.{number}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other), where
    else:
        assert one == other, where


def assert_same_checkpoint(one: Path, other: Path) -> None:
    """Weight files of equal sha256, and equal optimisers, anchors and step."""
    hashes = [{k: v for k, v in file_hashes(f).items() if k.endswith(".safetensors")} for f in (one, other)]
    assert len(hashes[0]) >= 3 and hashes[0] == hashes[1]
    assert_same_state(*(torch.load(folder / "state.pt", weights_only=True) for folder in (one, other)))


# ---- children ---------------------------------------------------------------------------------------------------


class HarnessProcess:
    """`python -m harness <words>` in a child that has its imports already; `before` runs there first."""

    def __init__(self, folder: Path, *words: str, before: Callable[[], Any] | None = None, **changes: Any):
        start_forkserver()
        context = multiprocessing.get_context("forkserver")
        arguments = [*words, "--config", str(BASE), *(w for text in overrides_of(**changes) for w in ("--set", text))]
        self.out_path, self.err_path = folder / "stdout.txt", folder / "stderr.txt"
        self.process = context.Process(target=_run_command, args=(str(folder), arguments, before))
        self.process.start()

    def wait(self, timeout_sec: float = 60) -> int:
        self.process.join(timeout_sec)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still at work: {self.stderr}")
        return self.process.exitcode

    @property
    def stderr(self) -> str:
        return self.err_path.read_text() if self.err_path.exists() else ""

    @property
    def stdout(self) -> str:
        return self.out_path.read_text() if self.out_path.exists() else ""


@cache
def start_forkserver() -> None:
    """A clean process that imports everything once; children are forked from it and not from the tests' process."""
    torch_imports_late = ["torch._dynamo", "torch.distributed"]
    we_import_late = ["matplotlib.figure", "matplotlib.backends.backend_agg", "tensorboard.compat.proto.event_pb2"]
    preload = ["tiny_runs", "harness.__main__", "harness.native.train", *torch_imports_late, *we_import_late]
    multiprocessing.set_forkserver_preload(preload)
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent), *filter(None, [path])])
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if path is None else os.environ.update(PYTHONPATH=path)


def _run_command(folder: str, arguments: list[str], before: Callable[[], Any] | None) -> None:
    from harness.__main__ import app
    from harness.cli import run_command

    os.chdir(folder)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(descriptor, number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    sys.argv = ["harness", *arguments]
    torch.set_num_threads(1)
    harness.checkpoints.sampling.STANDING_BATCHES = 1
    if before:
        before()
    try:
        run_command(app)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def run_module(module: str, *words: str, folder: Path = ROOT, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`python -m module words` as from a shell, in a folder; what is below `path` is imported first."""
    env = {**os.environ, "PYTHONPATH": f"{path}:{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", module, *words], cwd=folder, env=env, text=True, capture_output=True)


def run_harness(folder: Path, *words: str, before: Callable[[], Any] | None = None, **changes: Any) -> HarnessProcess:
    """A child run to its end."""
    child = HarnessProcess(folder, *words, before=before, **changes)
    child.wait()
    return child


def assert_one_clear_error(child: HarnessProcess, *words: str) -> None:
    """Exit 2, one message that has all the words, no traceback."""
    text = child.stderr
    assert child.process.exitcode == 2, text
    assert text.count("error:") == 1 and "Traceback" not in text, text
    message = text[text.index("error:") :]
    for word in words:
        assert word in message, (word, message)


# ---- faults -----------------------------------------------------------------------------------------------------


def step_after(action: Callable[[int], Any]) -> Callable[[Any], Any]:
    """Training's step, at whose beginning `action` is called with the number of steps that are done."""
    real = harness.native.train.train_step

    def step(run: Any) -> Any:
        action(run.step)
        return real(run)

    return step


FILE_OPERATIONS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "ftruncate")


def die_at_operation(number: int) -> Callable[[], int]:
    """From here on, the process is killed at file operation `number` (from 1): before it, for a write also half-way.

    Returns a function that tells how many points there were so far (number 0 = never die).
    """
    count = 0

    def point() -> None:
        nonlocal count
        count += 1
        if count == number:
            os._exit(9)

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def operation(*words: Any, **options: Any) -> Any:
            if name == "write" and words[0] <= 2:
                return real(*words)
            point()
            if name == "write" and count + 1 == number:
                real(words[0], memoryview(words[1])[: len(words[1]) // 2])
                point()
            elif name == "write":
                point()
            return real(*words, **options)

        return operation

    for name in FILE_OPERATIONS:
        setattr(os, name, watched(name))
    return lambda: count


def fail_writes_below(part: str, code: int) -> None:
    """Operations on files whose path contains `part` fail: writing with ENOSPC, opening to write with EACCES."""
    real_open, real_write = os.open, os.write
    paths: dict[int, str] = {}

    def failing_open(path: Any, flags: int, *words: Any, **options: Any) -> int:
        if code == errno.EACCES and part in str(path) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(code, os.strerror(code), str(path))
        descriptor = real_open(path, flags, *words, **options)
        paths[descriptor] = str(path)
        return descriptor

    def failing_write(descriptor: int, content: Any) -> int:
        if code == errno.ENOSPC and descriptor > 2 and part in paths.get(descriptor, ""):
            raise OSError(code, os.strerror(code))
        return real_write(descriptor, content)

    os.open, os.write = failing_open, failing_write
