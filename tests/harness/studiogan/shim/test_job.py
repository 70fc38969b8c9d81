"""What the shim refuses of a job, each in one line that names the key."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.studiogan.shim.job import read_job
from tests.harness.refusals import refusal_of
from tests.harness.studiogan.shim.shim_jobs import LECAM, SHIM, change_job


def test_a_job_is_read_whole(folder: Path) -> None:
    job = read_job(folder / "JOB.json")
    assert (job.first_step, job.last_step, job.version, job.checkpoint) == (4, 7, "0.2.0", "source")
    assert job.optimizer.d_lr == 4e-4 and job.lecam is not None and job.lecam.lambda_ == 0.3


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": "0.3.0"}, "version: found '0.3.0', allowed 0.2.0 or 0.4.0"),
        ({"processes": 0}, "processes: found 0"),
        ({"processes": True}, "processes: found True"),
        ({"freeze_layers": 0}, "freeze_layers: found 0"),
        ({"evaluate": 1}, "evaluate: found 1, allowed true or false"),
        ({"optimizer": {}}, "optimizer.g_lr: found nothing"),
        ({"optimizer": None}, "optimizer.g_lr: found nothing"),
        ({"optimizer": {"g_lr": float("nan"), "d_lr": 1, "beta1": 0, "beta2": 0}}, "optimizer.g_lr: found nan"),
        ({"lecam": LECAM | {"start_iter": 0}}, "lecam.start_iter: found 0"),
        ({"lecam": LECAM | {"type": "google"}}, "lecam.type: found 'google'"),
        ({"lecam": 3}, "lecam.type: found nothing"),
        ({"last_step": 4}, "first_step: found 4, allowed less than last_step = 4"),
        ({"checkpoint": None}, "first_step: found 4 without a checkpoint"),
        ({"checkpoint": None, "first_step": 0, "freeze_layers": 2}, "freeze_layers: found 2 without a checkpoint"),
        ({"checkpoint": "elsewhere"}, "checkpoint: found no model=D-current"),
        ({"checkout": "/nowhere"}, "checkout: found no StudioGAN in /nowhere, try `make studiogan`"),
        ({"config": "none.json"}, "config: found no file none.json"),
        ({"processes": 2, "sync_bn": True}, "sync_bn: found true"),
        ({"version": "0.4.0", "lecam": LECAM | {"type": "gsrgan"}}, "lecam.type: found gsrgan"),
    ],
)
def test_a_wrong_job_is_refused_by_its_key(folder: Path, changes: dict[str, Any], complaint: str) -> None:
    assert complaint in refusal_of(read_job, change_job(folder, **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", '"job"', "\0"])
def test_what_is_no_job_is_refused(folder: Path, text: str) -> None:
    (folder / "JOB.json").write_text(text)
    for name in ("JOB.json", "none.json"):
        with pytest.raises(UserError):
            read_job(folder / name)


def test_a_refusal_is_one_line_and_exit_code_2(folder: Path) -> None:
    change_job(folder, seed=-1)
    done = subprocess.run([sys.executable, str(SHIM), "JOB.json"], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "carforge: JOB.json: seed: found -1, allowed 0 or more\n"
