"""Speed of a training step, and the effect of each speed switch: `make bench`, or `python -m harness bench`.

CPU time on one thread, so that load matters little. Contenders alternate, one step per round; ratios are taken within a
round. A step is two D updates and one G update with hinge, LeCam, DiffAugment and Adam (`step.train_step`). The
reference is StudioGAN's own modules if there is a checkout, otherwise our engine in StudioGAN's order of operations.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.config.experiment import Config, load_config
from harness.errors import UserError
from harness.native.state import build_training
from harness.native.step import train_step
from harness.runtime.device import cpu_has_bf16, prepare_hardware
from harness.runtime.dist import World
from harness.studiogan.checkout import ROOT, find_checkout
from harness.studiogan.reference_modules import Modules

Step = Callable[[], object]


@dataclass(frozen=True)
class Size:
    pixels: int
    width: int  # g_conv_dim and d_conv_dim
    batch: int

    def __str__(self) -> str:
        return f"{self.pixels} px, {self.width} channels, batch {self.batch}"


SIZES = (Size(64, 32, 16), Size(128, 64, 8))
QUICK_SIZES = (Size(32, 8, 8),)

NAIVE = {
    "precision": "fp32",
    "numerics": "fast",
    "commute_1x1": "false",
    "channels_last": "false",
    "fused_adam": "false",
    "fuse_resampling": "false",
}
SWITCHES = {
    "channels_last": {"channels_last": "true"},
    "bf16": {"precision": "bf16"},
    "1x1 convolutions commuted": {"commute_1x1": "true"},
    "3x3 convolutions fused with resampling": {"fuse_resampling": "true"},
    "fused Adam": {"fused_adam": "true"},
}
AS_STUDIOGAN = {"numerics": "studiogan"}  # only bf16 applies besides it
OURS_FP32 = {key: value for switch in SWITCHES.values() for key, value in switch.items() if key != "precision"}
OURS_BF16 = OURS_FP32 | {"precision": "bf16"}


class NoiseSet:
    """Noise pictures in memory, instead of a packed set."""

    def __init__(self, size: Size):
        self.class_names = ["noise"]
        self.count, self.height, self.width = 4 * size.batch, size.pixels, size.pixels
        self.labels = np.zeros(self.count, np.int64)
        self._pictures = np.random.default_rng(0).integers(0, 256, (self.count, size.pixels, size.pixels, 3), np.uint8)

    def read(self, rows: np.ndarray | None = None) -> np.ndarray:
        return self._pictures if rows is None else self._pictures[rows]

    def close(self) -> None:
        """Nothing is open."""


def our_step(size: Size, switches: dict[str, str]) -> Step:
    """A step of the native engine with NAIVE overridden by `switches`."""
    config = bench_config(size, NAIVE | switches)
    run = build_training(config, prepare_hardware(config.train), World(), NoiseSet(size))
    run.step = 2  # LeCam acts after step 1
    return lambda: train_step(run)


def bench_config(size: Size, train: dict[str, str]) -> Config:
    settings = {
        "data.img_size": size.pixels,
        "model.g_conv_dim": size.width,
        "model.d_conv_dim": size.width,
        "model.g_init": "N02",
        "model.d_init": "N02",
        "loss.lecam_ema_start_iter": 1,
        "optim.batch_size": size.batch,
        "train.device": "cpu",
        "train.threads": 1,
        "train.deterministic": "false",
        **{f"train.{key}": value for key, value in train.items()},
    }
    return load_config(ROOT / "configs" / "cars128.yaml", [f"{key}={value}" for key, value in settings.items()])


def studiogan_step(modules: Modules, size: Size) -> Step:
    """A step with StudioGAN's modules, as in its worker.train, with LeCam as in 0.4.0 and pictures in memory."""
    config = bench_config(size, {})
    optim, batch, z_dim = config.optim, size.batch, config.model.z_dim
    same: dict[str, Any] = {"size": size.pixels, "width": size.width, "num_classes": 0, "attention_loc": 0}
    g = modules.generator(**same, z_dim=z_dim, sn=False).train()
    d = modules.discriminator(**same, sn=True).train()
    adams = [
        torch.optim.Adam(network.parameters(), lr, (optim.beta1, optim.beta2), optim.eps)
        for network, lr in ((g, optim.g_lr), (d, optim.d_lr))
    ]
    real = torch.rand(batch, 3, size.pixels, size.pixels) * 2 - 1
    lecam = lecam_of_040(config)

    def augment(x: torch.Tensor) -> torch.Tensor:
        return modules.diff_aug.DiffAugment(x, policy="color,translation,cutout")

    def step() -> None:
        g.requires_grad_(False)
        d.requires_grad_(True)
        for _ in range(optim.d_updates_per_step):
            adams[1].zero_grad()
            augmented = augment(real)
            fake = augment(g(torch.randn(batch, z_dim), None))
            real_logits, fake_logits = d(augmented, None), d(fake, None)
            loss = modules.losses.loss_hinge_dis(real_logits, fake_logits) + lecam(real_logits, fake_logits)
            loss.backward()
            adams[1].step()
        d.requires_grad_(False)
        g.requires_grad_(True)
        adams[0].zero_grad()
        fake = augment(g(torch.randn(batch, z_dim), None))
        modules.losses.loss_hinge_gen(d(fake, None)).backward()
        adams[0].step()

    return step


def lecam_of_040(config: Config) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """LeCam as in StudioGAN 0.4.0, with averages as Python numbers."""
    averages, decay = [0.0, 0.0], config.loss.lecam_ema_decay

    def penalty(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        for k, logits in enumerate((real_logits, fake_logits)):
            averages[k] = decay * averages[k] + (1 - decay) * logits.mean().item()
        pull = (real_logits - averages[1]).relu().pow(2).mean() + (averages[0] - fake_logits).relu().pow(2).mean()
        return config.loss.lecam_lambda * pull

    return penalty


def time_steps(contenders: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """CPU seconds per round and contender."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        if sys.stderr.isatty():
            print(f"  round {number} of {rounds}", end="\r", file=sys.stderr, flush=True)
        for name, step in contenders.items():
            begin = time.process_time()
            step()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - begin)
    return seconds


def print_table(title: str, seconds: dict[str, list[float]]) -> None:
    """Prints the contenders, compared with the first one."""
    print(f"\n{title}\n  {'':42}  s/step   times as fast [lowest, highest]")
    reference = next(iter(seconds.values()))
    for name, own in seconds.items():
        ratios = sorted(a / b for a, b in zip(reference, own, strict=True))
        middle = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]" if own is not reference else "1"
        print(f"  {name:42} {statistics.median(own):7.3f}   {middle}", flush=True)


def compare_switches(size: Size, rounds: int, compiled: bool) -> None:
    contenders = {"naive: eager fp32, NCHW, one D call": our_step(size, {})}
    contenders["StudioGAN's order (numerics: studiogan)"] = our_step(size, AS_STUDIOGAN)
    contenders |= {name: our_step(size, switch) for name, switch in SWITCHES.items()}
    contenders["all but bf16"] = our_step(size, OURS_FP32)
    contenders["all"] = our_step(size, OURS_BF16)
    if compiled:
        contenders["all, torch.compile"] = our_step(size, OURS_BF16 | {"compile": "true"})
    print_table(f"Each switch alone against our naive path ({size})", time_steps(contenders, rounds))


def compare_with_studiogan(size: Size, rounds: int) -> None:
    try:
        reference = {"StudioGAN 0.2.0": studiogan_step(Modules(find_checkout()), size)}
        title = f"Against StudioGAN's own modules ({size})"
    except UserError as error:
        reference = {"ours, studiogan numerics": our_step(size, AS_STUDIOGAN)}
        title = f"Against our engine in StudioGAN's order ({size}); its own modules need `make studiogan` ({error})"
    contenders = reference | {"ours, bf16": our_step(size, OURS_BF16), "ours, fp32": our_step(size, OURS_FP32)}
    print_table(title, time_steps(contenders, rounds))


def run_bench(quick: bool = False, rounds: int = 5, switches: bool = True, compiled: bool = False) -> None:
    """Prints the tables. `quick`: a small size only. About 7 CPU minutes otherwise."""
    warnings.filterwarnings("ignore", message="torch.meshgrid")  # StudioGAN's
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = QUICK_SIZES if quick else SIZES
    print(f"One thread, CPU time, median of {rounds} rounds.")
    if not cpu_has_bf16():
        print("This processor has no bf16 instructions: bf16 is emulated here and slow.")
    if switches:
        compare_switches(sizes[0], rounds, compiled)
    for size in sizes:
        compare_with_studiogan(size, rounds)
