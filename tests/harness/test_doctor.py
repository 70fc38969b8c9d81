"""`make doctor` reports installed, missing, old and broken packages, and the command that fixes them."""

import sys
from types import SimpleNamespace

import pytest

from harness import doctor
from tests.conftest import ROOT
from tests.harness.tiny_runs import run_module


def test_requirements_are_pinned_within_their_bounds():
    """requirements.txt pins what pyproject.toml asks for: all of the core, and what `make test` needs."""
    core, extras = doctor.read_requirements(ROOT / "pyproject.toml")
    pins = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[doctor.split_requirement(name)[0].lower()] = version
    needed = [*core, *(text for text in extras["dev"] if not text.startswith("playwright"))]
    for requirement in needed:
        name, bounds = doctor.split_requirement(requirement)
        assert all(doctor.version_fits(pins[name], bound) for bound in bounds), requirement


@pytest.mark.parametrize(
    "version, bound, fits",
    [
        ("2.13.0+cpu", ">=2.10", True),
        ("2.9.1", ">=2.10", False),
        ("2.10", ">=2.10.0", True),
        ("3.0", "<3", False),
        ("2.99.9", "<3", True),
        ("2.14.3rc1", ">=2.9", True),
    ],
)
def test_versions_are_compared_by_number(version, bound, fits):
    assert doctor.version_fits(version, bound) is fits


def test_examine_tells_good_missing_old_and_broken(tmp_path, monkeypatch):
    (tmp_path / "brokenlib").mkdir()
    (tmp_path / "brokenlib" / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')\n")
    (tmp_path / "quitlib.py").write_text("raise SystemExit('no token')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.examine("numpy>=2.0")[1] == ""
    assert doctor.examine("no-such-library>=1") == ("-", "MISSING")
    assert doctor.examine("numpy>=99")[1] == "needs >=99"
    assert doctor.examine("brokenlib>=1")[1] == "BROKEN: RuntimeError: operator nms does not exist"
    assert doctor.examine("quitlib>=1")[1] == "BROKEN: SystemExit: no token"


def test_every_package_that_is_there_is_found_under_its_module():
    """Where a package is installed and said to be broken, its module is looked for under a wrong name."""
    core, extras = doctor.read_requirements(ROOT / "pyproject.toml")
    found = {text: doctor.examine(text) for texts in (core, *extras.values()) for text in texts}
    assert not [text for text, (version, fault) in found.items() if version != "-" and "ModuleNotFound" in fault]
    assert found["pytest-xdist>=3.8"][1] == ""


def test_too_little_disk_for_the_demo_is_told(monkeypatch, capsys):
    for free_gib, warns in ((doctor.DEMO_GIB + 0.1, False), (doctor.DEMO_GIB - 0.1, True)):
        usage = SimpleNamespace(free=free_gib * 2**30, total=2**40)
        monkeypatch.setattr("shutil.disk_usage", lambda path, usage=usage: usage)
        doctor._print_machine()
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("disk")]
        assert ("too little for `make demo`" in line) is warns and f"{free_gib:.1f} of 1024 GiB free" in line


def test_the_install_command_names_pins_and_nothing_else():
    command = doctor.install_command({"torch>=2.10": "BROKEN: x", "pyyaml>=6.0": "MISSING"})
    assert command == f"{sys.executable} -m pip install --force-reinstall torch==2.13.0 pyyaml==6.0.3"
    assert "--force" not in doctor.install_command({"typer>=0.15": "MISSING"})


def test_a_whole_core_is_exit_0_and_a_broken_one_exit_2(tmp_path):
    whole = run_module("harness.doctor", path=tmp_path)
    assert whole.returncode == 0 and whole.stdout.splitlines()[-1] == "core: complete"
    for name in ("torch", "typer"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('built for something else')\n")
    broken = run_module("harness.doctor", path=tmp_path)
    assert broken.returncode == 2 and broken.stderr == ""
    assert "BROKEN: RuntimeError: built for something else" in broken.stdout
    last = broken.stdout.splitlines()[-1]
    assert "-m pip install" in last and "torch==" in last and "typer==" in last
