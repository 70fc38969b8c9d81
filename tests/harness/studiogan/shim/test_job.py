"""The shim reads JOB.json in StudioGAN's interpreter, refuses a damaged one, and needs no package of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.studiogan.shim.job import read_job
from tests.conftest import ROOT
from tests.harness.studiogan.shim.shim_jobs import SHIM, change_job


def test_a_job_is_read_whole(folder: Path) -> None:
    job = read_job(folder / "JOB.json")
    assert (job.first_step, job.last_step, job.version, job.checkpoint) == (4, 7, "0.2.0", "source")
    assert job.optimizer.d_lr == 4e-4 and job.lecam is not None and job.lecam.lambda_ == 0.3


@pytest.mark.parametrize("text", ["", "{", "[]", '"job"', "\0", "{}"])
def test_a_damaged_job_is_refused(folder: Path, text: str) -> None:
    (folder / "JOB.json").write_text(text)
    for name in ("JOB.json", "none.json"):
        with pytest.raises(UserError, match=r"json: cannot be read \(.*\); start StudioGAN through the engine"):
            read_job(folder / name)


def test_a_refusal_is_one_line_and_exit_code_2(folder: Path) -> None:
    change_job(folder, unknown=1)
    done = subprocess.run([sys.executable, str(SHIM), "JOB.json"], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("carforge: JOB.json: cannot be read (") and done.stderr.count("\n") == 1


def test_the_shim_imports_no_package_that_studiogan_lacks() -> None:
    code = "import sys; sys.modules |= dict.fromkeys(('pydantic', 'typer', 'safetensors')); "
    code += "from harness.studiogan.shim import job, run, v020, v040"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
