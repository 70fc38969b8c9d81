"""`train.precision: auto` on a CPU: the faster of fp32 and bf16, timed on the networks to train.

The CPU's instruction set alone does not decide it: bf16 is nearly twice as fast with matrix units or on large feature
maps, and slower than fp32 without them or in small networks.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from harness.config.experiment import Train
from harness.runtime.device import Hardware, one_thread, prepare_hardware
from harness.runtime.dist import World

Pass = Callable[[Hardware], object]  # forward and backward, with the hardware's autocast
FORMATS = ("fp32", "bf16")
MIN_GAIN = 1.15  # speed-up required of bf16: near-equal times must not give another choice at the next start
MAX_PICTURES = 8  # in a timed pass: enough to measure, short compared with a step
WARM_UPS, ROUNDS = 1, 3


def faster_format(
    hardware: Hardware, train: Train, make_pass: Callable[[], Pass], world: World | None = None
) -> Hardware:
    """The hardware for a new run: where `auto` chose bf16 on a CPU, fp32 unless bf16 is clearly faster.

    All processes use what rank 0 measures. `text` has both times.

    Args:
        make_pass: makes the pass to time; neither may change the run.
    """
    world = world or World()
    if train.precision != "auto" or hardware.device.type != "cpu" or not world.any_rank(hardware.precision == "bf16"):
        return hardware
    fp32_sec, bf16_sec = pass_seconds(make_pass(), hardware)
    takes_bf16 = world.any_rank(world.is_rank0 and fp32_sec >= MIN_GAIN * bf16_sec)
    chosen = hardware if takes_bf16 else _in_fp32(train)
    return replace(chosen, text=f"{chosen.text} (auto: {fp32_sec:.3g} CPU-s a pass in fp32, {bf16_sec:.3g} in bf16)")


def resumed_format(hardware: Hardware, train: Train, started_in: str | None) -> Hardware:
    """The hardware for a resumed run: on a CPU, `auto` stays at fp32 if the run began in it.

    `started_in`: kept with the run; None = it began before formats were timed, so `auto` follows the hardware.
    """
    stays = train.precision == "auto" and hardware.device.type == "cpu" and started_in == "fp32"
    return _in_fp32(train) if stays else hardware


def _in_fp32(train: Train) -> Hardware:
    return prepare_hardware(train.model_copy(update={"device": "cpu", "precision": "fp32"}))


def pass_seconds(one_pass: Pass, hardware: Hardware, clock: Callable[[], float] = time.process_time) -> list[float]:
    """Seconds of a pass in each of FORMATS: the minimum of ROUNDS alternating rounds.

    CPU time of one thread, so that other load on the machine hardly matters.
    """
    fastest = [float("inf")] * len(FORMATS)
    with one_thread():
        for number in range(WARM_UPS + ROUNDS):
            for place, precision in enumerate(FORMATS):
                began = clock()
                one_pass(replace(hardware, precision=precision))
                if number >= WARM_UPS:
                    fastest[place] = min(fastest[place], clock() - began)
    return fastest
