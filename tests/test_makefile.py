"""The Makefile: its help, its environment, and what its variables become. Nothing is installed: pip is stood in for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blend.__main__ import app
from harness.__main__ import app as harness_app
from tests.commands import ROOT, options_of

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


def make(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env={**inherited, **env}, text=True, capture_output=True, timeout=120
    )


def recipe(*arguments: str, **env: str) -> str:
    """The commands that make would run, with this interpreter."""
    result = make(ROOT, "-n", *arguments, f"PYTHON={sys.executable}", **env)
    assert result.returncode == 0, result.stderr
    return result.stdout.replace(sys.executable, "PY")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the Makefile, a list of requirements, and small stand-ins for pip, venv and Carforge's doctor."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    files = {
        "pip.py": "raise SystemExit('no-such' in open('requirements.txt').read())\n",
        "requirements.txt": "# nothing\n",
        "harness/doctor.py": "import sys; print('in', sys.prefix)\n",
        "bin/python3.11": f'#!/bin/sh\n[ "$2" = venv ] && set -- "$@" --without-pip\nexec {sys.executable} "$@"\n',
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "bin/python3.11").chmod(0o755)
    (tmp_path / "bin/python3.12").symlink_to("/bin/false")  # stands there and does not work, as some shims do
    return tmp_path


def make_in(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return make(checkout, *arguments, PATH=f"{checkout / 'bin'}:{os.environ['PATH']}")


def test_help_lists_every_target():
    listed = re.findall(r"^  make ([a-z]+) ", make(ROOT, "help").stdout, re.MULTILINE)
    assert listed == TARGETS and len(listed) >= 17
    assert set(TARGETS) <= set(" ".join(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)).split())


def test_a_check_of_a_source():
    assert recipe("scrape", "SOURCE=concept", "CHECK=1").split()[-4:] == ["-m", "scrapers", '"$SOURCE"', "--check"]
    assert "--check" not in recipe("scrape", "SOURCE=concept", CHECK="1")  # the environment changes nothing


def test_help_needs_no_python(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    assert make(tmp_path).returncode == 0
    assert not (tmp_path / ".venv").exists()


def test_train_builds_the_set_first_and_hands_on_every_variable():
    words = ("CONFIG=configs/x.yaml", "OVERRIDE=a.b=[1,2] c.d=e", "LIMIT_STEPS=5", "DRY_RUN=1")
    plan = "--config \"$CONFIG\" --set 'a.b=[1,2]' --set 'c.d=e' --dry-run"
    assert [" ".join(line.split()) for line in recipe("train", *words).splitlines()[-2:]] == [
        f"PY -m datasets build --stage train {plan}",
        f'exec PY -m harness train {plan} --limit-steps "$LIMIT_STEPS"',
    ]


PLAN = '--config "$CONFIG"'
BLEND_TARGETS = ["demo", "encoder", "invert", "measure", "blend", "gallery"]
BLEND_OPTIONS = {
    "invert": ("SRC", "KIND"),
    "blend": ("ORDINARY", "CONCEPT", "SEEDS", "INTENSITY", "STYLE", "FUTURISM", "RANGE", "NAME"),
}


@pytest.mark.parametrize("target", BLEND_TARGETS)
def test_a_stage_of_the_blend_gets_the_options_that_are_given(target):
    """`blend` is a folder, too: the target must run all the same."""
    shared = recipe(target, "OVERRIDE=a.b=[1,2] c.d=e", "DRY_RUN=1", "ARGS=--more").splitlines()[-1]
    assert (
        shared.split() == f"exec PY -m blend {target} {PLAN} --set 'a.b=[1,2]' --set 'c.d=e' --dry-run --more".split()
    )
    given = BLEND_OPTIONS.get(target, ())
    words = " ".join(f'--{name.lower()} "${name}"' for name in given)
    line = recipe(target, *(f"{name}=0" for name in given)).splitlines()[-1]
    assert line.split() == f"exec PY -m blend {target} {PLAN} {words}".split()


@pytest.mark.parametrize("target", BLEND_TARGETS)
def test_the_blend_knows_the_options_that_it_gets(target):
    known = options_of(app, target)
    assert {f"--{name.lower()}" for name in BLEND_OPTIONS.get(target, ())} <= known
    assert {"--config", "--set", "--dry-run"} <= known and ("--limit-steps" in known) == (target == "encoder")


COMMANDS = {
    "sample RUN BRAND N CHECKPOINT": 'harness sample "$RUN" --brand "$BRAND" --count "$N" --checkpoint "$CHECKPOINT"',
    "evaluate RUN CHECKPOINT OVERRIDE": """harness evaluate "$RUN" --checkpoint "$CHECKPOINT" --set '0'""",
    "configs VERSION": 'harness configs --config "$CONFIG" --set studiogan.version="$VERSION"',
    "export RUN OUT VERSION": 'harness export "$RUN" --out "$OUT" --version "$VERSION"',
    "import SRC NAME": 'harness import "$SRC" --name "$NAME"',
    "benchmark BENCH ENGINE LIMIT_STEPS": 'harness benchmark "$BENCH" --engine "$ENGINE" --limit-steps "$LIMIT_STEPS"',
    "studio RUN OPEN PORT HOST": 'blend studio --run "$RUN" --open --port "$PORT" --host "$HOST"',
    "studio": "blend studio",
    "draw SRC OUT": 'blend draw "$SRC" --out "$OUT"',
}


@pytest.mark.parametrize("call", COMMANDS)
def test_a_command_gets_the_options_that_are_given_and_knows_them(call):
    target, *given = call.split()
    line = recipe(target, *(f"{name}=0" for name in given)).splitlines()[-1]
    assert line.split() == f"exec PY -m {COMMANDS[call]}".split()
    known = options_of(app if COMMANDS[call].startswith("blend") else harness_app, target)
    assert set(re.findall(r"--[a-z-]+", COMMANDS[call])) <= known


def test_a_benchmark_makes_its_set_first():
    before = recipe("benchmark", "BENCH=CIFAR10/SNGAN", "SRC=x")
    assert 'harness benchmark "$BENCH" --plan' in before
    assert 'PY -m datasets build --stage train --config "$plan" --src "$SRC"' in before


def test_the_encoder_alone_can_be_stopped_early():
    limited = [target for target in BLEND_TARGETS if "--limit-steps" in recipe(target, "LIMIT_STEPS=5")]
    assert limited == ["encoder"]


def test_a_variable_of_the_blend_arrives_as_it_was_written(checkout):
    (checkout / "blend").mkdir()
    (checkout / "blend" / "__main__.py").write_text("import sys; print(sys.argv[1:])\n")
    odd = "my cars'; $(touch x) {a}"
    given = [f"ORDINARY={odd.replace('$', '$$')}", "RANGE=0 1", f"PYTHON={sys.executable}"]
    result = make_in(checkout, "blend", *given)
    expected = ["blend", "--config", "configs/demo.yaml", "--ordinary", odd, "--range", "0 1"]
    assert result.stdout.strip() == str(expected) and not (checkout / "x").exists()


@pytest.mark.parametrize("count, launcher", [("1", "-m harness "), ("2", '-m harness.launch "$NPROC" ')])
def test_several_processes_need_a_launcher(count, launcher):
    assert f"exec PY {launcher}finetune" in recipe("finetune", f"NPROC={count}")


def test_the_environment_changes_nothing():
    assert recipe("dataset", NAME="host", SET="x", SRC="y", SIZE="1", REBUILD="1") == recipe("dataset")
    everything = {name: "x" for names in BLEND_OPTIONS.values() for name in names}
    assert all(recipe(target, **everything) == recipe(target) for target in BLEND_TARGETS)


def test_an_unknown_set_is_one_line_and_exit_2():
    result = make(ROOT, "dataset", "SET=other", f"PYTHON={sys.executable}")
    assert result.returncode == 2
    assert "SET: found 'other', allowed brands50, car_connection, concept" in result.stderr


def test_a_given_python_that_does_not_run_is_one_line():
    result = make(ROOT, "doctor", "PYTHON=/no/such/python")
    assert result.returncode == 2
    assert result.stderr.startswith("PYTHON: found /no/such/python, which does not run")


def test_a_given_python_installs_nothing(checkout):
    result = make_in(checkout, "doctor", f"PYTHON={sys.executable}")
    assert result.stdout.strip() == f"in {sys.prefix}"
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_one_line(checkout):
    for name in ("python3.11", "python3", "python"):
        (checkout / "bin" / name).unlink(missing_ok=True)
        (checkout / "bin" / name).symlink_to("/bin/false")
    result = make_in(checkout, "doctor")
    assert result.returncode == 2
    assert result.stderr.splitlines()[0].startswith("python: found no Python 3.11 or 3.12")
    assert not (checkout / ".venv").exists()


def test_the_environment_is_made_once_and_again_when_stale_or_interrupted(checkout):
    stamp, unfinished = checkout / ".venv/.installed-requirements", checkout / ".venv/.unfinished"
    first = make_in(checkout, "doctor")
    assert first.stdout.strip() == f"in {checkout / '.venv'}" and "making .venv" in first.stderr
    assert stamp.exists() and not unfinished.exists()

    (checkout / "requirements.txt").touch()  # newer, as after a checkout, but the same
    assert make_in(checkout, "doctor").stderr == ""

    (checkout / "requirements.txt").write_text("# something else\n")
    stale = make_in(checkout, "doctor")
    assert "installing" in stale.stderr and "making" not in stale.stderr

    (checkout / "requirements.txt").write_text("no-such-package\n")
    failed = make_in(checkout, "doctor")
    assert failed.returncode == 2 and not stamp.exists() and unfinished.exists()

    (checkout / "requirements.txt").write_text("# mended\n")
    (checkout / ".venv" / "half").touch()
    again = make_in(checkout, "doctor")
    assert "making .venv" in again.stderr and not (checkout / ".venv" / "half").exists()
    assert again.returncode == 0 and stamp.exists() and not unfinished.exists()


def test_an_environment_whose_interpreter_is_gone_is_made_again(checkout):
    make_in(checkout, "doctor")
    (checkout / ".venv/bin/python").unlink()
    (checkout / ".venv/bin/python").symlink_to("/no/such/python")
    again = make_in(checkout, "doctor")
    assert again.returncode == 0 and "making .venv" in again.stderr


@pytest.mark.parametrize("code", [2, 75])
def test_a_commands_exit_code_is_told(checkout, code):
    (checkout / "harness" / "doctor.py").write_text(f"raise SystemExit({code})\n")
    result = make_in(checkout, "doctor", f"PYTHON={sys.executable}")
    assert result.returncode == 2 and result.stderr.splitlines()[-1].endswith(f"Error {code}")
