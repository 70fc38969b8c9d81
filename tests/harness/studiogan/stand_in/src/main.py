"""A stand-in for StudioGAN 0.2.0's src/main.py: its command line, files, log lines and failures, and no training.

What it saves are files made beforehand, of the step that it claims to be at. How it misbehaves is said by
STAND_IN_MODE, as `<what>:<step>`: see MISDEEDS.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

FLOOD_BYTES = 3_000_000


def crash() -> None:
    raise RuntimeError("the weights of pt_inception-2015-12-05-6726825d.pth cannot be had")


def hang() -> None:
    time.sleep(600)


def be_slow() -> None:
    time.sleep(0.75)


def wait_for_signal() -> None:
    """A long iteration, in which the signal comes."""
    from harness.studiogan.shim import process

    while not process.stop_requested():
        time.sleep(0.01)


def hang_deaf() -> None:
    """As in a call that never comes back to the interpreter."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)


def hang_with_child() -> None:
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
    hang_deaf()


def leave_child() -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def flood() -> None:
    sys.stderr.buffer.write(b"\r 50%|#####     | 1/2" * (FLOOD_BYTES // 20))


def cut() -> None:
    sys.stdout.write("[INFO] 2026-01-01 00:00:00 > Step:       9 Progress: 90.0% Elapsed: 0:00:09 Discriminator_l")
    sys.stdout.flush()
    os._exit(1)


def strange_bytes() -> None:
    sys.stdout.buffer.write(b"\xff\xfe[INFO] \xc3( 2026 > Step: \x00\x80\n\x1b[31m[INFO]\n")
    sys.stdout.buffer.flush()


def out_of_memory() -> None:
    print("carforge: out of memory: CUDA out of memory. Tried to allocate 2.00 GiB.", flush=True)
    sys.stdout.flush()
    os._exit(3)


def refuse() -> None:
    print("carforge: loss.adv_loss: found vanilla, allowed hinge on a CPU, try hinge", file=sys.stderr)
    sys.exit(2)


MISDEEDS: dict[str, Callable[[], None]] = {
    "crash": crash,
    "hang": hang,
    "slow": be_slow,
    "hang-deaf": hang_deaf,
    "wait-for-signal": wait_for_signal,
    "hang-with-child": hang_with_child,
    "leave-child": leave_child,
    "flood": flood,
    "cut": cut,
    "strange-bytes": strange_bytes,
    "oom": out_of_memory,
    "refuse": refuse,
    "end": lambda: os._exit(0),
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "signal-parent": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "kill-parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
}


def misbehave(step: int) -> None:
    for deed in filter(None, os.environ.get("STAND_IN_MODE", "").split(",")):
        what, _, at = deed.partition(":")
        if what in MISDEEDS and step == int(at):
            MISDEEDS[what]()


def nan_at(step: int) -> bool:
    return f"nan:{step}" in os.environ.get("STAND_IN_MODE", "").split(",")


def parse(arguments: list[str]) -> Namespace:
    """The options that matter of the real one, which knows no --help either."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("-c", "--config_path", default="./src/configs/CIFAR10/ContraGAN.json")
    parser.add_argument("--checkpoint_folder")
    for flag in (("-current", "--load_current"), ("-t", "--train"), ("-e", "--eval"), ("-l",)):
        parser.add_argument(*flag, action="store_true")
    for option, default in (("--seed", -1), ("--num_workers", 8), ("--freeze_layers", -1)):
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--print_every", type=int, default=100)
    parser.add_argument("--save_every", type=int, default=2000)
    parser.add_argument("--eval_type", default="test")
    return parser.parse_args(arguments)


class Loop:
    """`before_iteration(step)` may raise to end it, `after_save(step, folder)` sees what was saved."""

    def __init__(self, options: Namespace) -> None:
        self.options = options
        self.config = json.loads(Path(options.config_path).read_text())
        self.before_iteration: Callable[[int], None] = lambda step: None
        self.after_save: Callable[[int, Path], None] = lambda step, folder: None
        self.total = self.config["train"]["optimization"]["total_step"]
        self.first_step = 0
        handler = logging.StreamHandler(sys.stdout)
        form = "[%(levelname)s] %(asctime)s > %(message)s"
        handler.setFormatter(logging.Formatter(form, datefmt="%Y-%m-%d %H:%M:%S"))
        self.logger = logging.Logger("run", logging.INFO)
        self.logger.addHandler(handler)

    def check_files(self) -> None:
        """It stumbles over what is missing, as the real one does."""
        data = self.config["data_processing"]
        packed = Path(data["data_path"]) / f"{data['dataset_name']}_{data['img_size']}_train.hdf5"
        assert packed.is_file(), packed
        assert any(Path("data/CUSTOM/valid").glob("*/*.png"))
        if self.options.checkpoint_folder:
            when = "current" if self.options.load_current else "best"
            found = list(Path(self.options.checkpoint_folder).glob(f"model=G-{when}-weights-step=*.pth"))
            assert len(found) == 1, found
            step = int(found[0].stem.rpartition("=")[2])
            self.first_step = 0 if self.options.freeze_layers > -1 else step

    def run(self) -> None:
        self.check_files()
        self.logger.info("Run name : run-train-2026_01_01_00_00_00")
        print("Generator(\n  (linear0): Linear(in_features=8, out_features=256, bias=True)\n)")
        self.logger.info("Start training....")
        step = self.first_step
        while True:
            misbehave(step)
            self.before_iteration(step)
            step += 1
            if step % self.options.print_every == 0:
                self.tell(step)
            if step % self.options.save_every == 0 or step == self.total:
                best = self.options.eval and self.evaluate(step)
                self.save(step, "best" if best else "current")

    def tell(self, step: int) -> None:
        d_loss = float("nan") if nan_at(step) else 1 + 1 / step
        self.logger.info(
            f"Step: {step:>7} Progress: {step / self.total:<.1%} Elapsed: 0:00:{step % 60:02d} temperature: No "
            f"ada_p: No Discriminator_loss: {d_loss:<.6} Generator_loss: {-1 / step:<.6} "
        )

    def evaluate(self, step: int) -> bool:
        self.logger.info(f"Start Evaluation ({step} Step): run")
        for text in (
            "F_8 score (Step: {}, Using valid images): 0.5",
            "F_1/8 score (Step: {}, Using valid images): 0.25",
        ):
            self.logger.info(text.format(step))
        fid = f"{step if os.environ.get('STAND_IN_FID') == 'step' else 100 - step}.25"
        self.logger.info(f"FID score (Step: {step}, Using valid moments): {fid}")
        self.logger.info(f"Inception score (Step: {step}, 8 generated images): nan")
        self.logger.info(f"Best FID score (Step: {step}, Using valid moments): {fid}")
        return True

    def save(self, step: int, when: str) -> None:
        made = Path(os.environ["STAND_IN_WEIGHTS"])
        folder = Path("checkpoints/run")
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("model=*"):
            path.unlink()
        for path in (made / f"step-{step}").iterdir():
            shutil.copy(path, folder)
        if f"damage:{step}" in os.environ.get("STAND_IN_MODE", "").split(","):
            (folder / f"model=D-current-weights-step={step}.pth").write_bytes(b"half of i")
        self.logger.info("Save model to checkpoints/run")
        self.after_save(step, folder)
        self.saved_step = step


def main() -> None:
    options = parse(sys.argv[1:])
    if not options.train:
        sys.exit(1)
    Loop(options).run()


if __name__ == "__main__":
    main()
