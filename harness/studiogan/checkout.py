"""The StudioGAN checkout, 0.2.0 or 0.4.0: finding it, checking its commit, installing it.

This repository contains none of its code; it runs in its own interpreter.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.errors import UserError
from harness.messages import log

COMMITS = {
    "0.2.0": "12ab50a5c590ed56cf9403778d79d20bae26accd",
    "0.4.0": "e4c5d829c11e68811679f79c9c701fa5b49a80b9",
}
DEFAULT_URL = "https://github.com/POSTECH-CVLab/PyTorch-StudioGAN"
ROOT = Path(__file__).resolve().parents[2]
THIRD_PARTY = ROOT / "third_party"
FOLDERS = {"0.2.0": "PyTorch-StudioGAN", "0.4.0": "PyTorch-StudioGAN-0.4.0"}
DEFAULT_VENV = ROOT / ".venv-studiogan"

# torchvision only works with the torch build it was made for; === keeps pip from choosing a local build of torch, which
# sorts higher. These builds run on a CPU too.
PACKAGES = (
    "torch===2.13.0",
    "torchvision===0.28.0",
    "numpy>=2.0",
    "scipy>=1.13,<1.18",  # 1.18 removes an argument of sqrtm that StudioGAN passes
    "h5py",
    "pyyaml",
    "requests",
    "setuptools",  # for distutils, removed in Python 3.12
    "scikit-learn",
    "seaborn",
    "matplotlib",
    "tqdm",
    "tensorboard",
    "pillow",
)
MODULES = (
    "torch", "torchvision", "h5py", "yaml", "requests", "sklearn", "seaborn", "matplotlib", "tqdm", "PIL",
    "tensorboard",
)  # fmt: skip


def find_checkout(version: str = "0.2.0") -> Path:
    """Folder of the StudioGAN checkout of this version: $STUDIOGAN_HOME, or the one in third_party/."""
    home = _home(version)
    if not (home / "src" / "main.py").is_file():
        command = "make studiogan" if version == "0.2.0" else f"make studiogan VERSION={version}"
        raise UserError(f"STUDIOGAN_HOME: found no StudioGAN in {home}, try `{command}`")
    head, expected = _output(["git", "-C", str(home), "rev-parse", "HEAD"]), COMMITS[version]
    if head != expected:
        others = [name for name, commit in COMMITS.items() if commit == head]
        found = f"StudioGAN {others[0]}" if others else f"commit {head[:7] or 'unknown'}"
        more = f" or --set studiogan.version={others[0]}" if others else ""
        raise UserError(
            f"STUDIOGAN_HOME: found {found} in {home}, allowed {expected[:7]} ({version}), "
            f"try `git -C {home} checkout {expected[:7]}`{more}"
        )
    if changed := _output(["git", "-C", str(home), "status", "--porcelain", "--untracked-files=no"]).splitlines():
        raise UserError(
            f"STUDIOGAN_HOME: found {len(changed)} changed files in {home} ({changed[0].split()[-1]} ...), allowed "
            f"those of {expected[:7]} ({version}), try `git -C {home} stash`"
        )
    return home


def _home(version: str) -> Path:
    given = os.environ.get("STUDIOGAN_HOME")
    return Path(given).expanduser() if given else THIRD_PARTY / FOLDERS[version]


def find_python() -> Path:
    """The interpreter that runs StudioGAN: $STUDIOGAN_PYTHON, or the one in .venv-studiogan."""
    given = os.environ.get("STUDIOGAN_PYTHON")
    python = Path(given).expanduser() if given else DEFAULT_VENV / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise UserError(f"STUDIOGAN_PYTHON: found no interpreter at {python}, try `make studiogan`")
    return python


def check_environment(python: Path) -> None:
    """UserError when this interpreter cannot import the packages of StudioGAN."""
    _run([str(python), "-c", f"import {', '.join(MODULES)}"], f"STUDIOGAN_PYTHON: {python} lacks")


def describe() -> list[str]:
    """For `make doctor`: one line for each version's checkout and for the interpreter, found or missing; never
    raises.
    """
    lines = []
    for version in COMMITS:
        try:
            lines.append(f"{version}: {find_checkout(version)} at {COMMITS[version][:7]}")
        except UserError as error:
            lines.append(f"{version}: {error}")
    code = "import torch, torchvision as v; print(f'torch {torch.__version__}, torchvision {v.__version__}, ' + ("
    code += "torch.cuda.get_device_name() if torch.cuda.is_available() else 'no CUDA device'))"
    try:
        python = find_python()
        output = _output([str(python), "-c", code])
        lines.append(f"interpreter: {python}, {output or 'its torch and torchvision do not fit each other'}")
    except UserError as error:
        lines.append(f"interpreter: {error}")
    return lines


def prepare(version: str = "0.2.0") -> Path:
    """Clones StudioGAN from $STUDIOGAN_URL and creates its environment, unless they exist. Returns the checkout."""
    home = _home(version)
    if not os.environ.get("STUDIOGAN_HOME") and not home.exists():
        _clone(os.environ.get("STUDIOGAN_URL") or DEFAULT_URL, home, COMMITS[version])
    home = find_checkout(version)
    if not os.environ.get("STUDIOGAN_PYTHON"):
        _make_environment(DEFAULT_VENV)
    check_environment(find_python())
    return home


def _clone(url: str, home: Path, commit: str) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    partial = home.with_name(home.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _run(
        ["git", "clone", "--quiet", url, str(partial)],
        f"STUDIOGAN_URL: cannot clone {url}; set it to a mirror or a folder",
    )
    _run(["git", "-C", str(partial), "checkout", "--quiet", commit], f"STUDIOGAN_URL: {url} does not have {commit[:7]}")
    partial.rename(home)


def _make_environment(folder: Path) -> None:
    """A virtual environment with PACKAGES (about 5 GB). Can be repeated after an interruption or a change of the
    list.
    """
    complete, expected = folder / "complete", "\n".join(PACKAGES)
    if complete.exists() and complete.read_text() == expected:
        return
    log(f"Creating {folder} (downloads about 3 GB) ...")
    complete.unlink(missing_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], f"{folder}: cannot create a virtual environment")
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES], f"{folder}: cannot install")
    complete.write_text(expected)


def _run(command: list[str], complaint: str) -> None:
    """Runs a command; on failure a UserError with `complaint` and the last line of its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{complaint}: {error}") from error
    if done.returncode:
        output = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()[-1]
        raise UserError(f"{complaint}: {output}")


def _output(command: list[str]) -> str:
    """A command's stdout; "" when it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
