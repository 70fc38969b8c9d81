"""Does with a job what harness/studiogan/shim/main.py does, to the stand-in checkout; starts at once, without torch."""

import json
import os
import shutil
import sys
import time
from importlib import import_module
from pathlib import Path


def main(job_path: str) -> int:
    job = json.loads(Path(job_path).read_text())
    sys.path += [str(Path(__file__).resolve().parents[4])]
    sys.path.insert(0, str(Path(job["checkout"]) / "src"))
    from harness.studiogan.shim import process

    process.catch_stop_signals()
    process.die_with_parent(process.engine_pid())
    process.HEARTBEAT_SEC, heartbeat = 0.0, process.Heartbeat()
    stand_in = import_module("main")

    record(job)
    loop = stand_in.Loop(stand_in.parse(words(job)))
    process.log_event("starting", version=job["version"])
    saved = {job["first_step"]}

    def publish(step: int, folder: Path) -> None:
        final = Path(f"checkpoints/step-{step:08d}")
        shutil.copytree(folder, final.with_name(final.name + ".partial"))
        final.with_name(final.name + ".partial").rename(final)
        saved.add(step)
        process.log_event("saved", step=step, folder=final, best=int(job["evaluate"]), peak_mib=1)
        while final.exists() and "STAND_IN_PACED" in os.environ:  # the engine is to see each save, however slow it is
            time.sleep(0.01)

    def before(step: int) -> None:
        if step == loop.first_step:
            process.log_event("training", step=step)
        else:
            heartbeat.beat(step)
        done = step >= job["last_step"]
        if done or process.stop_requested():
            if step not in saved:
                loop.save(step, "current")
            process.log_event("finished" if done else "stopped", step=step)
            sys.exit(0 if done else 75)

    loop.before_iteration, loop.after_save = before, publish
    loop.check_files()
    loop.first_step, loop.check_files = job["first_step"], lambda: None
    loop.run()
    return 1


def words(job: dict) -> list[str]:
    given = ["-t", "-l", "-c", job["config"], "--seed", str(job["seed"]), "--eval_type", "valid"]
    given += ["--print_every", str(job["print_every"]), "--save_every", str(job["save_every"])]
    given += ["-e"] if job["evaluate"] else []
    given += ["--checkpoint_folder", job["checkpoint"], "-current"] if job["checkpoint"] else []
    given += ["--freeze_layers", str(job["freeze_layers"])] if job["freeze_layers"] else []
    return given


def record(job: dict) -> None:
    """For the test: what this start was given."""
    files = sorted(str(path.relative_to(Path.cwd())) for path in Path.cwd().rglob("*") if path.is_file())
    environment = sorted(os.environ)
    with open(os.environ["STAND_IN_RECORD"], "a") as file:
        file.write(json.dumps({"job": job, "files": files, "pid": os.getpid(), "environment": environment}) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
