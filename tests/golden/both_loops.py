"""The same training by both engines: StudioGAN's loop in its own interpreter, ours here. And how far apart they end."""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import harness.native.step
from harness.native.diffaug import numbers_to_draws
from harness.native.freeze import freeze_discriminator
from harness.native.state import build_training
from harness.native.step import Training, train_step
from harness.networks.build import build_networks
from harness.networks.spectral_norm import SpectralNorm
from harness.runtime.device import one_thread, prepare_hardware
from harness.runtime.dist import World
from harness.storage.hdf5 import open_packed
from harness.studiogan.checkout import find_python
from tests.golden.loop_case import LoopCase, make_config, make_leaves
from tests.golden.parity_case import Inputs
from tests.harness.tiny_runs import pack_pictures

CHILD = Path(__file__).with_name("studiogan_loop.py")
State = dict[str, Tensor]
NETWORKS = ("G", "D", "EMA")


@dataclass(frozen=True)
class Loop:
    """What a training left: states by step and network, and the losses, the mean over a step's batches, (steps,)."""

    states: dict[int, dict[str, State]]
    d_losses: Tensor
    g_losses: Tensor


# ---- StudioGAN's -----------------------------------------------------------------------------------------------------


def studiogan_loop(
    checkout: Path,
    case: LoopCase,
    inputs: Inputs,
    start: Mapping[str, State],
    *,
    dtype: torch.dtype,
    keep_steps: Iterable[int] | None = None,
    lecam: str = "0.4.0",
    put_back: Loop | None = None,
) -> Loop:
    """A run of `studiogan_loop.py`.

    Args:
        keep_steps: after which its state is kept; None = all.
        lecam: whose code, "0.4.0" (its tag must be in the checkout) or "ours".
        put_back: another run, whose networks are put in after each of its kept steps (once those here are kept).
    """
    job = {
        "checkout": str(checkout.resolve()),
        "case": asdict(case),
        "leaves": make_leaves(case),
        "inputs": vars(inputs),
        "start": {name: dict(state) for name, state in start.items()},
        "dtype": str(dtype).removeprefix("torch."),
        "keep_steps": list(range(1, case.steps + 1) if keep_steps is None else keep_steps),
        "lecam": lecam,
        "put_back": put_back.states if put_back else {},
    }
    with tempfile.TemporaryDirectory() as folder:
        torch.save(job, Path(folder, "job.pt"))
        command = [str(find_python()), str(CHILD), "job.pt", "out.pt"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        out = torch.load(Path(folder, "out.pt"), weights_only=True)
    d_losses, g_losses = (out[name].view(case.steps, -1).mean(1) for name in ("d_losses", "g_losses"))
    return Loop(out["kept"], d_losses, g_losses)


def has_040(checkout: Path) -> bool:
    """Whether the checkout's history has 0.4.0, whose LeCam is used."""
    command = ["git", "-C", str(checkout), "cat-file", "-e", "v.0.4.0:src/utils/ops.py"]
    return subprocess.run(command, capture_output=True).returncode == 0


# ---- Ours ------------------------------------------------------------------------------------------------------------


class GivenBatches:
    """Stands for the PictureSource: channels-last, as it reads them."""

    def __init__(self, inputs: Inputs, dtype: torch.dtype):
        real = inputs.real.to(dtype).permute(0, 1, 3, 4, 2).contiguous()
        self.real, self.labels = real.permute(0, 1, 4, 2, 3), inputs.real_y

    def batch(self, k: int) -> tuple[Tensor, Tensor]:
        return self.real[k], self.labels[k]


class GivenStreams:
    """Stands for RandomStreams; a stream is its own name."""

    local_slice = slice(None)

    def __init__(self, inputs: Inputs, dtype: torch.dtype):
        self.latents_of = {"d.latents": (inputs.d_z.to(dtype), inputs.d_y)}
        self.latents_of["g.latents"] = (inputs.g_z.to(dtype), inputs.g_y)
        self.numbers_of = {"d.real": inputs.d_real_numbers, "d.fake": inputs.d_fake_numbers}
        self.numbers_of["g.fake"] = inputs.g_fake_numbers

    def latents(
        self, purpose: str, index: int, count: int, z_dim: int, num_classes: int
    ) -> tuple[Tensor, Tensor | None]:
        z, y = (values[index] for values in self.latents_of[purpose])
        assert z.shape == (count, z_dim)
        return z, y if num_classes else None

    def stream(self, purpose: str, index: int) -> tuple[str, int]:
        return purpose, index

    def draw_diffaug(self, shape: Any, policy: Any, stream: Any, device: Any, dtype: torch.dtype) -> dict[str, Tensor]:
        purpose, index = stream
        return numbers_to_draws(self.numbers_of[purpose][index], shape, policy, dtype)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    torch.set_default_dtype(dtype)
    try:
        with one_thread():
            yield
    finally:
        torch.set_default_dtype(before)
        torch.use_deterministic_algorithms(deterministic)


def build_run(case: LoopCase, start: Mapping[str, State], folder: Path, built_for: str, **train: Any) -> Training:
    """The engine as a run builds it, from a config; only its pictures are another matter."""
    config = make_config(case, numerics=built_for, **train)
    classes = [str(k) for k in range(max(1, case.num_classes))]
    path = pack_pictures(folder / "one.hdf5", np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1), classes)
    with open_packed(path) as packed:
        run = build_training(config, prepare_hardware(config.train), World(), packed)
    run.config = make_config(case, **train)
    for name, network in networks_of(run).items():
        network.load_state_dict(start[name])
    if case.freeze_layers:
        freeze_discriminator(run.discriminator, case.freeze_layers)
    return run


def native_loop(
    case: LoopCase,
    inputs: Inputs,
    start: Mapping[str, State],
    *,
    dtype: torch.dtype,
    keep_steps: Iterable[int] | None = None,
    put_back: Loop | None = None,
    frozen_vectors_move: bool = False,
    built_for: str = "studiogan",
    **train: Any,
) -> Loop:
    """Our `train_step` on the same inputs.

    Args:
        keep_steps, put_back: as in `studiogan_loop`.
        frozen_vectors_move: let the spectral-norm vectors of frozen blocks move, as StudioGAN's do.
        built_for: the `numerics` that networks and optimisers are built for; steps are `studiogan` all the same.
        train: switches of the config's section `train`.
    """
    keep = set(range(1, case.steps + 1) if keep_steps is None else keep_steps)
    states, losses = {}, []
    streams = GivenStreams(inputs, dtype)
    with default_dtype(dtype), tempfile.TemporaryDirectory() as folder:
        run = build_run(case, start, Path(folder), built_for, **train)
        run.source, run.streams = GivenBatches(inputs, dtype), streams  # type: ignore[assignment]
        run.nonfinite = run.nonfinite.float()  # fused Adam takes no other type for it
        for layer in run.discriminator.modules():
            if isinstance(layer, SpectralNorm) and frozen_vectors_move:
                layer.frozen = False
        with patch.object(harness.native.step, "draw_diffaug", streams.draw_diffaug):
            for step in range(1, case.steps + 1):
                values = train_step(run)
                losses.append(torch.stack([values["d_loss"], values["g_loss"]]))
                if step in keep:
                    states[step] = copy_states(run)
                for name, state in put_back.states[step].items() if put_back and step in put_back.states else ():
                    networks_of(run)[name].load_state_dict(state)
    d_losses, g_losses = torch.stack(losses).unbind(1)
    return Loop(states, d_losses, g_losses)


def networks_of(run: Training) -> dict[str, torch.nn.Module]:
    assert run.generator_ema is not None
    return {"G": run.generator, "D": run.discriminator, "EMA": run.generator_ema}


def copy_states(run: Training) -> dict[str, State]:
    return {
        name: {key: value.detach().clone() for key, value in network.state_dict().items()}
        for name, network in networks_of(run).items()
    }


def fresh_start(case: LoopCase, seed: int = 0) -> dict[str, State]:
    """Networks as our engine begins with: orthogonal weights. float32."""
    config = make_config(case).model_copy(update={"seed": seed})
    g, d = build_networks(config, case.num_classes, torch.device("cpu"))
    return {"G": g.state_dict(), "D": d.state_dict(), "EMA": g.state_dict()}


# ---- Apart -----------------------------------------------------------------------------------------------------------


def farthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Largest difference of any number of two states: weights, running statistics, spectral-norm vectors.

    Counters of batches are left out: StudioGAN averages them like weights and cuts them to integers.
    """
    assert list(one) == list(other)
    floats = [key for key, value in one.items() if value.is_floating_point()]
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in floats)


def relative_to_movement(one: State, other: State, start: State) -> float:
    """Norm of the difference of two networks' weights over the norm of the second's movement from the start."""
    keys = [key for key in start if is_weight(key)]
    apart = sum(float((one[key].double() - other[key].double()).square().sum()) for key in keys)
    moved = sum(float((other[key].double() - start[key].double()).square().sum()) for key in keys)
    return (apart / moved) ** 0.5


def is_weight(key: str) -> bool:
    """What an optimiser moves, or the average of it: no running statistics, counters or spectral-norm vectors."""
    return key.rsplit(".", 1)[-1] in ("weight", "weight_orig", "bias", "sigma")
