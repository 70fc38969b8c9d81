"""The user's own StudioGAN 0.2.0: where it is, whether it is the right one, and how to get it.

Nothing of it is kept in this repository; it runs in its own interpreter.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.errors import UserError

COMMIT = "12ab50a5c590ed56cf9403778d79d20bae26accd"  # tag v0.2.0
DEFAULT_URL = "https://github.com/POSTECH-CVLab/PyTorch-StudioGAN"
ROOT = Path(__file__).resolve().parents[2]
DEFAULT_HOME = ROOT / "third_party" / "PyTorch-StudioGAN"
DEFAULT_VENV = ROOT / ".venv-studiogan"

# torchvision works only beside the torch build it was made for; === keeps pip from taking a local build of torch,
# which sorts higher. These builds run on a CPU too.
PACKAGES = (
    "torch===2.13.0",
    "torchvision===0.28.0",
    "numpy>=2.0",
    "scipy>=1.13,<1.18",  # 1.18 removes an argument of sqrtm that StudioGAN gives
    "h5py",
    "scikit-learn",
    "seaborn",
    "matplotlib",
    "tqdm",
    "tensorboard",
    "pillow",
)


def find_checkout() -> Path:
    """Folder of a StudioGAN checkout at 0.2.0: $STUDIOGAN_HOME, else third_party/PyTorch-StudioGAN."""
    given = os.environ.get("STUDIOGAN_HOME")
    home = Path(given).expanduser() if given else DEFAULT_HOME
    if not (home / "src" / "main.py").is_file():
        raise UserError(f"STUDIOGAN_HOME: found no StudioGAN in {home}, try `make studiogan`")
    head = _output(["git", "-C", str(home), "rev-parse", "HEAD"])
    if head != COMMIT:
        raise UserError(
            f"STUDIOGAN_HOME: found commit {head[:7] or 'unknown'} in {home}, allowed 12ab50a (0.2.0), "
            f"try `git -C {home} checkout 12ab50a`"
        )
    return home


def find_python() -> Path:
    """The interpreter that runs StudioGAN: $STUDIOGAN_PYTHON, else the one in .venv-studiogan."""
    given = os.environ.get("STUDIOGAN_PYTHON")
    python = Path(given).expanduser() if given else DEFAULT_VENV / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise UserError(f"STUDIOGAN_PYTHON: found no interpreter at {python}, try `make studiogan`")
    return python


def prepare() -> Path:
    """Clones StudioGAN from $STUDIOGAN_URL and makes its environment, unless they exist. Returns the checkout."""
    if not os.environ.get("STUDIOGAN_HOME") and not DEFAULT_HOME.exists():
        _clone(os.environ.get("STUDIOGAN_URL") or DEFAULT_URL, DEFAULT_HOME)
    home = find_checkout()
    if not os.environ.get("STUDIOGAN_PYTHON"):
        _make_environment(DEFAULT_VENV)
    python = find_python()
    _run([str(python), "-c", "import torch, torchvision, seaborn, sklearn, h5py"], f"STUDIOGAN_PYTHON: {python} lacks")
    return home


def _clone(url: str, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    partial = home.with_name(home.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _run(
        ["git", "clone", "--quiet", url, str(partial)],
        f"STUDIOGAN_URL: cannot clone {url}; set it to a mirror or a folder",
    )
    _run(["git", "-C", str(partial), "checkout", "--quiet", COMMIT], f"STUDIOGAN_URL: {url} does not have 12ab50a")
    partial.rename(home)


def _make_environment(folder: Path) -> None:
    """A virtual environment with PACKAGES (about 5 GB). Safe to repeat after an interruption."""
    complete = folder / "complete"
    if complete.exists():
        return
    print(f"Making {folder} (downloads about 3 GB) ...", file=sys.stderr)
    _run([sys.executable, "-m", "venv", str(folder)], f"{folder}: cannot make a virtual environment")
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES], f"{folder}: cannot install")
    complete.touch()


def _run(command: list[str], complaint: str) -> None:
    """Runs a command; on failure a UserError with `complaint` and the last line that the command said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{complaint}: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()[-1]
        raise UserError(f"{complaint}: {said}")


def _output(command: list[str]) -> str:
    """What a command says, "" when it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
