"""Stand-ins for the stages of the demo, processes that write files, wait and use CPU time; a demo that runs them."""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from blend.demo import demo
from blend.demo.stages import STAGES, Stage
from harness.cli import run_command
from harness.runtime.child import tree_usage
from tests.commands import ROOT, wait_until

CONFIG = ROOT / "configs" / "demo.yaml"
NAMES = [stage.name for stage in STAGES]
PATIENCE_SEC = 30
fork = multiprocessing.get_context("fork")

# Two units of work, each saved: it resumes after a kill, as the stages do. `plan/<name>` has more instructions.
STAND_IN = """
import json, os, signal, sys, time
name, plan, work = sys.argv[1], f"plan/{sys.argv[1]}", f"runs/demo/{sys.argv[1]}.work"
def log(text):
    with open("journal", "a") as journal: journal.write(f"{name} {text}\\n")
def stop(number, frame):
    log(signal.Signals(number).name)
    time.sleep(0.1)  # saves
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
log(f"starts {os.getpid()} {' '.join(sys.argv[2:])}")
print("a line on stdout")
todo = json.load(open(plan)) if os.path.exists(plan) else {}
memory = b"x" * todo.get("bytes", 0)
for unit in range(os.path.getsize(work) if os.path.exists(work) else 0, 2):
    end = time.process_time() + todo.get("cpu_sec", 0) / 2
    while time.process_time() < end: pass
    with open(work, "a") as kept: kept.write("x")
    if unit == 0 and "child_cpu_sec" in todo:
        import subprocess
        burn = f"import time\\nwhile time.process_time() < {todo['child_cpu_sec']}: pass"
        subprocess.run([sys.executable, "-S", "-c", burn])
    if todo.get("wait") and os.path.exists(plan):
        log("waits")
        while os.path.exists(plan): time.sleep(0.01)
if "code" in todo: sys.exit(todo["code"])
if name == "encoder": open("runs/demo/metrics.json", "w").write('{"encoder": {"latent_mse": 0.7712}}')
if name == "gallery": open("runs/demo/report.html", "w").write(open("runs/demo/metrics.json").read())
log("done")
"""
STAND_INS = [
    replace(
        stage,
        command=("-S", "-E", "stand_in.py", stage.name),
        outputs=lambda config, name=stage.name: [Path("runs/demo") / f"{name}.work"],
    )
    for stage in STAGES
]
FEW = [stage for stage in STAND_INS if stage.name in ("train", "encoder", "gallery")]
FEW_NAMES = [stage.name for stage in FEW]


class Demo:
    """`demo_run` in a process of its own, as from the command line."""

    def __init__(
        self,
        *overrides: str,
        stages: list[Stage] = FEW,
        dry_run: bool = False,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        def work() -> None:
            os.setsid()  # no signals of a terminal or of the tests
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            demo.POLL_SEC, demo.SAMPLE_EVERY_SEC, demo.RECORD_EVERY_SEC = 0.01, 0.02, 0.05
            before()
            run_command(lambda: demo.demo_run(CONFIG, list(overrides), dry_run, stages))

        self.process = fork.Process(target=work)
        self.process.start()
        self.pid = self.process.pid or 0

    def code(self) -> int:
        self.process.join(PATIENCE_SEC)
        assert self.process.exitcode is not None, "the demo does not end"
        return self.process.exitcode

    def kill(self, number: int = signal.SIGKILL) -> int:
        os.kill(self.pid, number)
        return self.code()


def plan(name: str, **todo: object) -> None:
    Path("plan", name).write_text(json.dumps(todo))


def unplan(name: str) -> None:
    Path("plan", name).unlink()


def journal() -> list[str]:
    return Path("journal").read_text().splitlines() if Path("journal").exists() else []


def started() -> list[str]:
    """The stages in the order of their starts."""
    return [line.split()[0] for line in journal() if " starts " in line]


def wait_until_waiting(name: str, times: int = 1) -> int:
    """Waits until a stage has reached the middle of its work so many times; its pid."""
    wait_until(lambda: journal().count(f"{name} waits") >= times, f"{name} waiting")
    pid = int([line for line in journal() if line.startswith(f"{name} starts")][-1].split()[2])
    kept = Path("runs/demo/demo/stages.json")
    wait_until(lambda: kept.exists() and f'"pid": {pid}' in kept.read_text(), "a record of it")
    return pid


def waiting_in(
    name: str, times: int = 1, stages: list[Stage] = FEW, before: Callable[[], object] = lambda: None, **todo: object
) -> tuple[Demo, int]:
    """A demo that waits in the middle of this stage, and the pid of the stage."""
    plan(name, wait=True, **todo)
    run = Demo(stages=stages, before=before)
    return run, wait_until_waiting(name, times)


def is_gone(pid: int) -> bool:
    return tree_usage(pid) is None


def metrics() -> dict:
    return json.loads(Path("runs/demo/metrics.json").read_text())


def usage_of(name: str) -> dict:
    return json.loads(Path("runs/demo/demo/stages.json").read_text())["stages"][name]["usage"]
