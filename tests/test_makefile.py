"""The Makefile: its help, its environment, and what its variables become. Nothing is installed: pip is stood in for."""

import ast
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from blend.__main__ import app
from harness.__main__ import app as harness_app
from harness.make import split_args, split_overrides
from tests.commands import ROOT, options_of
from tests.refusals import refused

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = [name for name in re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE) if name != "given-python"]

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
    return result.stdout.replace('"$PYTHON" -m harness.make', "DO")


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


def make_in(checkout: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return make(checkout, *arguments, PATH=f"{checkout / 'bin'}:{os.environ['PATH']}", **env)


def test_help_lists_every_target():
    listed = re.findall(r"^  ([a-z-]+) ", make(ROOT, "help").stdout, re.MULTILINE)
    assert listed == TARGETS and len(listed) >= 17
    assert set(TARGETS) <= set(" ".join(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)).split())


def test_a_check_of_a_source():
    assert recipe("scrape", "SOURCE=concept", "CHECK=1").split()[-4:] == ["DO", "scrapers", '"$SOURCE"', "--check"]
    assert "--check" not in recipe("scrape", "SOURCE=concept", "CHECK=0")
    assert "--check" not in recipe("scrape", "SOURCE=concept", CHECK="1")  # the environment changes nothing


def test_help_needs_no_python(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    assert make(tmp_path).returncode == 0
    assert not (tmp_path / ".venv").exists()


def test_train_builds_the_set_first_and_hands_on_every_variable():
    words = ("CONFIG=configs/x.yaml", "OVERRIDE=a.b=[1,2] c.d=e", "LIMIT_STEPS=5", "DRY_RUN=1")
    plan = '--config "$CONFIG" --overrides "$OVERRIDE" --dry-run'
    assert [" ".join(line.split()) for line in recipe("train", *words).splitlines()[-2:]] == [
        f"DO datasets build --stage train {plan}",
        f'exec DO harness train {plan} --limit-steps "$LIMIT_STEPS"',
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
    assert shared.split() == f'exec DO blend {target} {PLAN} --overrides "$OVERRIDE" --dry-run --args "$ARGS"'.split()
    given = BLEND_OPTIONS.get(target, ())
    words = " ".join(f'--{name.lower()} "${name}"' for name in given)
    line = recipe(target, *(f"{name}=0" for name in given)).splitlines()[-1]
    assert line.split() == f"exec DO blend {target} {PLAN} {words}".split()


@pytest.mark.parametrize("target", BLEND_TARGETS)
def test_the_blend_knows_the_options_that_it_gets(target):
    known = options_of(app, target)
    assert {f"--{name.lower()}" for name in BLEND_OPTIONS.get(target, ())} <= known
    assert {"--config", "--set", "--dry-run"} <= known and ("--limit-steps" in known) == (target == "encoder")


COMMANDS = {
    "sample RUN LABEL N CHECKPOINT": 'harness sample "$RUN" --label "$LABEL" --count "$N" --checkpoint "$CHECKPOINT"',
    "evaluate RUN CHECKPOINT": 'harness evaluate "$RUN" --checkpoint "$CHECKPOINT"',
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
    line = recipe(target, *(f"{name}=1" for name in given)).splitlines()[-1]
    assert line.split() == f"exec DO {COMMANDS[call]}".split()
    known = options_of(app if COMMANDS[call].startswith("blend") else harness_app, target)
    assert set(re.findall(r"--[a-z-]+", COMMANDS[call])) <= known


def test_a_benchmark_makes_its_set_first():
    before = recipe("benchmark", "BENCH=CIFAR10/SNGAN", "SRC=x")
    assert 'harness benchmark "$BENCH" --plan' in before
    assert 'DO datasets build --stage train --config "$plan" --src "$SRC"' in before


MACROS = dict(re.findall(r"^([A-Z_]+) \+?:?= (.*)$", re.sub(r"\n(\w+) \+= ", " ", MAKEFILE), re.MULTILINE))
RULES = re.findall(r"^((?:#~ .*\n)*)([a-z-]+):.* ##.*\n((?:(?:\t|if|else|end).*\n)*)", MAKEFILE, re.MULTILINE)


def read_by(recipe_text: str) -> set[str]:
    """The variables that a recipe reads, through any macro. PYTHON and ARGS are everyone's."""
    names = set(re.findall(r"\$[$(]([A-Z_]+)", recipe_text)) - {"DO", "PY", "READY", "MORE"}
    return {found for name in names for found in (read_by(MACROS[name]) if name in MACROS else {name})}


@pytest.mark.parametrize("takes, target, recipe_text", RULES, ids=[rule[1] for rule in RULES])
def test_help_lists_the_variables_that_a_target_reads(takes, target, recipe_text):
    assert set(re.findall(r"([A-Z_]+)=", takes)) == read_by(recipe_text)


def test_a_variable_that_the_target_does_not_take_is_refused():
    result = make(ROOT, "sample", "RUN=x", "STYLE=1")
    assert result.returncode == 2 and "STYLE: found with `make sample`, which does not take it" in result.stderr
    assert "LIMIT_STEPS" in recipe("train", "encoder", "LIMIT_STEPS=5", "SRC=x")  # one of the two takes SRC


def test_a_run_stands_in_place_of_a_config():
    assert recipe("measure", "RUN=demo").split()[-5:] == ["DO", "blend", "measure", "--run", '"$RUN"']
    both = make(ROOT, "measure", "RUN=demo", "CONFIG=configs/demo.yaml")
    assert both.returncode == 2 and "RUN: found beside CONFIG" in both.stderr


def test_a_class_has_two_names():
    assert recipe("sample", "RUN=x", "BRAND=audi") == recipe("sample", "RUN=x", "LABEL=audi")
    both = make(ROOT, "sample", "RUN=x", "BRAND=audi", "LABEL=audi")
    assert both.returncode == 2 and "BRAND: found beside LABEL" in both.stderr


ODD = """my  car's; $(touch x) $(shell touch x) `touch x` $$dir ${a} #1 "q" \\ {a} *"""
BLEND = ["blend", "--config", "configs/demo.yaml"]


def words_of_blend(checkout: Path, *given: str) -> list[str]:
    """What a command gets of these variables. Nothing of them may be run."""
    (checkout / "blend").mkdir()
    (checkout / "blend" / "__main__.py").write_text("import sys; print(sys.argv[1:])\n")
    for name in ("__init__", "doctor", "errors", "make", "messages"):
        shutil.copy(ROOT / "harness" / f"{name}.py", checkout / "harness")
    shutil.copytree(ROOT / "harness" / "studiogan", checkout / "harness" / "studiogan")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    result = make_in(checkout, "blend", *given, f"PYTHON={sys.executable}")
    assert result.returncode == 0 and not (checkout / "x").exists(), result.stderr
    return ast.literal_eval(result.stdout)


def test_a_variable_arrives_as_it_was_written(checkout):
    assert words_of_blend(checkout, f"ORDINARY={ODD}", "RANGE=0 1") == [*BLEND, "--ordinary", ODD, "--range", "0 1"]


def test_overrides_and_options_are_split_and_arrive_as_they_were_written(checkout):
    given = (f"OVERRIDE=data.src={ODD}   data.img_size=[32, 64] name=x", "ARGS=--out 'my dir/$(touch x)' --seed 1")
    expected = ["--set", f"data.src={ODD}", "--set", "data.img_size=[32, 64]", "--set", "name=x"]
    assert words_of_blend(checkout, *given) == [*BLEND, *expected, "--out", "my dir/$(touch x)", "--seed", "1"]


@pytest.mark.parametrize(
    "text, parts",
    [
        ("a.b=1", ["a.b=1"]),
        (" a.b=it's  c=2 ", ["a.b=it's", "c=2"]),
        ("data.src='/cars y=2/x' c=2", ["data.src='/cars y=2/x'", "c=2"]),
        ("data.src='it''s a=1' c=2", ["data.src='it''s a=1'", "c=2"]),
        ('data.src="a=\\" b=1" c=2', ['data.src="a=\\" b=1"', "c=2"]),
        ("a='b c=2", ["a='b", "c=2"]),
        ("a.b= c.d=1", ["a.b=", "c.d=1"]),
        ("a={x: 1, y: [2, 3]}", ["a={x: 1, y: [2, 3]}"]),
    ],
)
def test_overrides_are_split_where_a_key_begins(text, parts):
    assert split_overrides(text) == parts


@pytest.mark.parametrize("split, text", [(split_overrides, "nonsense a=1"), (split_args, "--out 'half")])
def test_what_cannot_be_split_is_one_line(split, text):
    with refused("found", "allowed", "try"):
        split(text)


@pytest.mark.parametrize("switch", ["DRY_RUN", "PRETRAINED", "OPEN", "REBUILD", "RESCAN"])
def test_a_switch_is_a_yes_or_a_no(switch):
    target = {"OPEN": "studio", "REBUILD": "dataset", "RESCAN": "dataset"}.get(switch, "demo")
    off, on = recipe(target), recipe(target, f"{switch}=1")
    option = f"--{switch.lower().replace('_', '-')}"
    assert option in on.split() and option not in off.split()
    assert {recipe(target, f"{switch}={no}") for no in ("", "0", "no", "false", "off", "n")} == {off}
    assert {recipe(target, f"{switch}={yes}") for yes in ("yes", "true", "on", "y")} == {on}
    refused_line = make(ROOT, target, f"{switch}=maybe")
    assert refused_line.returncode == 2 and f"{switch}: found maybe, allowed 1 or 0" in refused_line.stderr


@pytest.mark.parametrize(
    "given, meant",
    [("OVERIDE=a.b=1", "OVERRIDE"), ("config=x", "CONFIG"), ("SEED=1", "SEEDS"), ("data.src=x", "OVERRIDE='data.src=")],
)
def test_an_unknown_variable_is_refused_before_anything(checkout, given, meant):
    result = make_in(checkout, "demo", given)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and not (checkout / ".venv").exists()
    assert f"{given.partition('=')[0]}: found an unknown variable, try {meant}" in result.stderr


def test_variables_of_other_programs_pass(tmp_path):
    given = ("PIP_INDEX_URL=x", "STUDIOGAN_HOME=x", "CARFORGE_WEIGHTS=$(shell touch x)", "MAKEFLAGS=", "SHELL=/bin/sh")
    shutil.copy(ROOT / "Makefile", tmp_path)
    assert make(tmp_path, "help", *given).returncode == 0 and not (tmp_path / "x").exists()


def test_an_empty_config_is_not_the_demo():
    result = make(ROOT, "train", "CONFIG=")
    assert result.returncode == 2 and "CONFIG: found nothing, allowed a config" in result.stderr


def test_python_is_looked_for_as_it_is_written_and_finds_us_where_it_would_not_look(checkout):
    (checkout / "my python's").symlink_to(sys.executable)
    result = make_in(checkout, "doctor", f"PYTHON={checkout}/my python's", PYTHONSAFEPATH="1")
    assert result.returncode == 0 and result.stdout.startswith("in "), result.stderr


def test_a_python_without_the_packages_is_one_line(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    result = make(ROOT, "evaluate", "RUN=x", f"PYTHON={tmp_path}/bare/bin/python")
    assert result.returncode == 2
    said = [line for line in result.stderr.splitlines() if not line.startswith("make: ")]
    assert len(said) == 1 and "without torch, numpy" in said[0] and "make doctor PYTHON=" in said[0]


@pytest.mark.parametrize("count, launcher", [("1", "harness "), ("2", 'harness.launch "$NPROC" ')])
def test_several_processes_need_a_launcher(count, launcher):
    assert f"exec DO {launcher}finetune" in recipe("finetune", f"NPROC={count}")


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
    assert result.stderr.startswith("PYTHON: found /no/such/python, which does not run as Python 3.11 or 3.12")


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
