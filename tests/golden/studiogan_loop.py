"""Runs StudioGAN 0.2.0's own training on a CPU, with given weights, batches, latents and draws. No file is edited.

StudioGAN's interpreter runs this in an empty folder: `python studiogan_loop.py JOB.pt OUT.pt`. Its own are: reading the
config, `prepare_train_eval`, networks, optimisers, EMA, hinge losses, DiffAugment and `make_worker.train`. Given are:
the start of the networks, the data loader's batches, what `sample_latents` returns, and the random numbers that
DiffAugment asks torch for. LeCam, which 0.2.0 lacks, is added to its D loss: the code of 0.4.0, or ours.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Penalty = Callable[[Tensor, Tensor, int], Tensor]


class CpuRank(str):
    """The rank of the only process: equal to 0, and for torch the name of a device."""

    def __eq__(self, other: object) -> bool:
        return other == 0 if isinstance(other, int) else str.__eq__(self, other)

    __hash__ = str.__hash__


# ---- What this machine lacks ---------------------------------------------------------------------------------------


def stand_in_for_cuda() -> None:
    """StudioGAN asks for a GPU, and imports two things that need one or cannot be installed; neither is used here."""
    torch.cuda.device_count = lambda: 1  # type: ignore[assignment]
    torch.cuda.current_device = lambda: CpuRank("cpu")  # type: ignore[assignment, return-value]
    for name, used in (("torchlars", "LARS"), ("utils.ada", "augment")):
        module = ModuleType(name)
        setattr(module, used, None)
        sys.modules[name] = module


# ---- What is given -------------------------------------------------------------------------------------------------


class Batches:
    """Stands for the data loader: the given batches, in order, once."""

    def __init__(self, real: Tensor, labels: Tensor):
        self.left = list(zip(real, labels, strict=True))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while self.left:
            yield self.left.pop(0)


class GivenStreams:
    """`torch` for DiffAugment: its next random numbers are the next column of the given ones (calls, B, 7)."""

    def __init__(self, numbers: list[Tensor]):
        self.left = [column for call in numbers for column in call.unbind(1)]

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def rand(self, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        return self.left.pop(0).view(shape).to(dtype)

    def randint(self, low: int, high: int, size: list[int], device: torch.device) -> Tensor:
        return (low + (self.left.pop(0) * (high - low)).floor()).long().view(size)


def in_call_order(d: Tensor, g: Tensor, case: dict[str, Any]) -> list[Tensor]:
    """D's and G's rows in the order of the loop: those of all D batches of a step, then those of its G batches."""
    rows: list[Tensor] = []
    per_step, micro = case["d_steps"] * case["acml_steps"], case["acml_steps"]
    for step in range(case["steps"]):
        rows += [*d[step * per_step : (step + 1) * per_step], *g[step * micro : (step + 1) * micro]]
    return rows


def give_inputs(job: dict[str, Any]) -> list[list[Any]]:
    """Puts the given inputs in StudioGAN's modules. Returns what must be used up in the end."""
    case, inputs = job["case"], job["inputs"]
    dtype = torch.get_default_dtype()
    loader: Any = import_module("loader")
    worker: Any = import_module("worker")
    diff_aug: Any = import_module("utils.diff_aug")

    batches = Batches(inputs["real"].to(dtype), inputs["real_y"])
    loader.LoadDataset = lambda *_, **__: [None]
    loader.DataLoader = lambda *_, **__: batches

    z = in_call_order(inputs["d_z"].to(dtype), inputs["g_z"].to(dtype), case)
    y = in_call_order(inputs["d_y"], inputs["g_y"], case)
    worker.sample_latents = lambda *_, **__: (z.pop(0), y.pop(0))

    real_and_fake = torch.stack([inputs["d_real_numbers"], inputs["d_fake_numbers"]], dim=1).flatten(0, 1)
    numbers = in_call_order(real_and_fake, inputs["g_fake_numbers"], {**case, "d_steps": 2 * case["d_steps"]})
    if case["diffaug"]:
        diff_aug.torch = GivenStreams(numbers)
        return [batches.left, z, y, diff_aug.torch.left]
    return [batches.left, z, y]


# ---- LeCam ---------------------------------------------------------------------------------------------------------


def lecam_of_040(checkout: Path, lambda_: float, decay: float, start: int) -> Penalty:
    """By 0.4.0's own `LeCamEMA` and `lecam_reg`, called as its worker calls them; taken from the checkout's history."""

    def module_of(name: str) -> ModuleType:
        command = ["git", "-C", str(checkout), "show", f"v.0.4.0:src/{name.replace('.', '/')}.py"]
        source = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        module = sys.modules[name] = ModuleType(name)
        exec(compile(source, name, "exec"), module.__dict__)
        return module

    utils: Any = ModuleType("utils")
    style: Any = ModuleType("utils.style_ops")
    style.conv2d_gradfix = None  # compiled for CUDA, and not for LeCam
    sys.modules |= {"utils": utils, "utils.style_ops": style}
    utils.ops = module_of("utils.ops")
    losses: Any = module_of("utils.losses")
    anchors = utils.ops.LeCamEMA()
    anchors.decay, anchors.start_itr = decay, start
    for name in ("utils", "utils.style_ops", "utils.ops", "utils.losses"):
        del sys.modules[name]  # 0.2.0 has modules of the same names

    def penalty(real: Tensor, fake: Tensor, step: int) -> Tensor:
        anchors.update(torch.mean(real).item(), "D_real", step)
        anchors.update(torch.mean(fake).item(), "D_fake", step)
        return lambda_ * losses.lecam_reg(real, fake, anchors) if step > start else real.new_zeros(())

    return penalty


def lecam_of_ours(lambda_: float, decay: float, start: int) -> Penalty:
    return import_module("harness.native.losses").LeCam("standard", lambda_, decay, start).penalty


def watch_losses(penalty: Penalty, case: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Adds LeCam to StudioGAN's D loss. Returns the lists that D's and G's losses go to, one for each call."""
    loader: Any = import_module("loader")
    of_d, of_g = loader.loss_hinge_dis, loader.loss_hinge_gen
    d_losses: list[Tensor] = []
    g_losses: list[Tensor] = []

    @functools.wraps(of_d)
    def d_loss(real: Tensor, fake: Tensor) -> Tensor:
        step = len(d_losses) // (case["d_steps"] * case["acml_steps"])
        loss = of_d(real, fake) + penalty(real, fake, step)
        d_losses.append(loss.detach())
        return loss

    @functools.wraps(of_g)
    def g_loss(fake: Tensor) -> Tensor:
        loss = of_g(fake)
        g_losses.append(loss.detach())
        return loss

    loader.loss_hinge_dis, loader.loss_hinge_gen = d_loss, g_loss
    return d_losses, g_losses


# ---- The run -------------------------------------------------------------------------------------------------------


def watch_worker(job: dict[str, Any]) -> dict[int, Any]:
    """Lets StudioGAN's worker begin with the given weights. Returns the states after the steps that are to be kept."""
    loader: Any = import_module("loader")
    make_worker = loader.make_worker
    kept: dict[int, Any] = {}

    def begin(**arguments: Any) -> Any:
        worker = make_worker(**arguments)
        networks = {"G": worker.gen_model, "D": worker.dis_model, "EMA": worker.Gen_copy}
        for name, network in networks.items():
            network.load_state_dict(job["start"][name])
        if job["case"]["freeze_layers"]:  # its command line takes this only together with a folder of checkpoints
            worker.freeze_layers = job["case"]["freeze_layers"]
        update = worker.Gen_ema.update

        def update_and_keep(step: int) -> None:
            update(step)  # the last act of a step, which has number `step` from 0
            if step + 1 in job["keep_steps"]:
                kept[step + 1] = {
                    name: {key: value.clone() for key, value in network.state_dict().items()}
                    for name, network in networks.items()
                }
            for name, network in networks.items() if step + 1 in job["put_back"] else ():
                network.load_state_dict(job["put_back"][step + 1][name])

        worker.Gen_ema.update = update_and_keep
        return worker

    loader.make_worker = begin
    return kept


def write_config(checkout: Path, leaves: dict[str, Any]) -> None:
    """config.json: the published CIFAR10/SNGAN with other values for these leaves."""
    config = json.loads((checkout / "src/configs/CIFAR10/SNGAN.json").read_text())
    unknown = set(leaves)

    def change(section: dict[str, Any]) -> None:
        for key, value in section.items():
            if isinstance(value, dict):
                change(value)
            elif key in leaves:
                section[key] = leaves[key]
                unknown.discard(key)

    change(config)
    assert not unknown, unknown
    Path("config.json").write_text(json.dumps(config))


def run(job: dict[str, Any]) -> dict[str, Any]:
    checkout, case = Path(job["checkout"]), job["case"]
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, job["dtype"]))
    numbers = (case["lecam_lambda"], case["lecam_decay"], case["lecam_start"])
    penalty = lecam_of_040(checkout, *numbers) if job["lecam"] == "0.4.0" else lecam_of_ours(*numbers)
    stand_in_for_cuda()
    sys.path.insert(0, str(checkout / "src"))
    write_config(checkout, job["leaves"])
    to_use_up = give_inputs(job)
    d_losses, g_losses = watch_losses(penalty, case)
    kept = watch_worker(job)
    never = "1000000000"
    sys.argv = ["main.py", "-c", "config.json", "-t", "--seed", "1", "--num_workers", "0"]
    sys.argv += ["--print_every", never, "--save_every", never]
    import_module("main").main()
    assert not any(to_use_up), [len(left) for left in to_use_up]
    return {"kept": kept, "d_losses": torch.stack(d_losses), "g_losses": torch.stack(g_losses)}


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    job_path, out_path = sys.argv[1:]
    torch.save(run(torch.load(job_path, weights_only=True)), out_path)
