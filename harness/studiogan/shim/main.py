"""Runs StudioGAN's own training in StudioGAN's interpreter, as described by the engine's JOB.json.

    cd <work folder>; <python of StudioGAN> -u <repository>/harness/studiogan/shim/main.py JOB.json

No file of StudioGAN is changed: missing imports are stubbed and attributes patched before its main() is called.

In:   JOB.json (job.py), the config it names, data/CUSTOM/ (0.2.0: custom_<size>_train.hdf5; 0.4.0:
      <DATA.name>_<size>_wo_resize_train.hdf5; both: valid/<class>/*.png, at least one), and the job's checkpoint
      folder, if any, with StudioGAN's *-current-* files. It is only read.
Steps: first_step decides: 0 with a checkpoint starts a fine-tuning, more than 0 resumes, also with frozen layers.
      last_step is saved even if it is not a multiple of save_every; nothing runs after it.
Out:  checkpoints/step-XXXXXXXX/ for each save: model={G,D[,G_ema]}-current-weights-step=<N>.pth and, with LeCam,
      lecam-step=<N>.pt ({"ema_real", "ema_fake"}). The folder ends in .partial until it is complete. The shim deletes
      none of them.
Log:  stdout, StudioGAN's lines and ours: `carforge: <word> key=value ...` with the words starting, optimizer, lecam,
      training, saved, stopped, finished. Warnings and tracebacks go to stderr.
Exit: 0 finished; 75 stopped by SIGTERM, SIGINT or SIGUSR1, after the iteration, saved; 2 refused, with one line
      `carforge: ...` on stderr; 3 out of CUDA memory, with a line `carforge: out of memory: ...`; 1 anything else.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def main(job_path: str) -> int:
    # The modules of this folder and of the repository must not shadow StudioGAN's (process, log, ...).
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
    sys.path.append(str(ROOT))
    from harness.errors import EXIT_USER_ERROR, UserError
    from harness.studiogan.shim import process
    from harness.studiogan.shim.job import read_job

    process.catch_stop_signals()
    process.die_with_parent(process.engine_pid())
    try:
        job = read_job(Path(job_path))
    except UserError as error:
        print(f"carforge: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    sys.path.insert(0, str(job.checkout / "src"))
    _prepare_environment(job.device, job.processes, job.threads)
    if job.processes > 1:
        process.set_master_address()
    from harness.studiogan.shim.run import start

    process.exit_now(start(job))


def _prepare_environment(device: str, processes: int, threads: int) -> None:
    """Variables that must be set before torch is imported."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        # StudioGAN uses every visible GPU.
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = [name for name in given.split(",") if name] if given is not None else [str(i) for i in range(processes)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen[:processes])
    if threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    os.environ.setdefault("MPLBACKEND", "Agg")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: main.py JOB.json")
    sys.exit(main(sys.argv[1]))
