"""The command line: exit codes, what works without torch, dry runs."""

import errno
import os
import shutil
import sys
import types
import typing
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from harness import __main__ as command_line
from harness.cli import run_command
from harness.errors import Interrupted, UserError
from harness.launch import launch
from tests.commands import run_python
from tests.conftest import ROOT
from tests.harness.sabotage import raising
from tests.harness.tiny_runs import BASE as BASE_PATH
from tests.harness.tiny_runs import run_module

BASE = str(BASE_PATH)
harness = partial(run_module, "harness")


@pytest.mark.parametrize(
    "error, code, text",
    [
        (UserError("a.b: found 1, allowed 2"), 2, "error: a.b: found 1, allowed 2\n"),
        (Interrupted("saved"), 75, "saved\n"),
        (Interrupted(), 75, "interrupted: the same command resumes from here\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "samples/a.png"),
            2,
            "error: samples/a.png: No space left on device; no partial files are kept; fix this and run it again\n",
        ),
    ],
)
def test_what_is_not_our_bug_ends_without_a_traceback(error, code, text, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        run_command(raising(error))
    assert ended.value.code == code and capsys.readouterr().err == text


@pytest.mark.parametrize("name", ["n" * 300, "configs/base.yaml/x"])
def test_a_name_that_no_file_can_have_is_one_line(name, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: os.stat(f"{ROOT}/{name}"))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and name in said


def test_our_bugs_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)
    with pytest.raises(FileNotFoundError):
        run_command(lambda: Path("never/there").read_bytes())


def test_odd_file_names_can_be_told(capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit):
        run_command(raising(UserError(os.fsdecode(b"\xff.png: unreadable"))))
    assert "udcff.png" in capsys.readouterr().err


def test_odd_paths_can_be_printed():
    code = "from harness.cli import run_command; run_command(lambda: print('runs/caf\\udce9'))"
    done = run_python("-X", "utf8", "-c", code)
    assert (done.returncode, done.stdout) == (0, "runs/caf\\udce9\n")


@pytest.mark.parametrize("module", ["harness.__main__", "blend.__main__"])
def test_every_path_of_a_command_has_its_home_expanded(module, monkeypatch):
    monkeypatch.setenv("HOME", "elsewhere")
    found = [
        option
        for function in vars(import_module(module)).values()
        if isinstance(function, types.FunctionType) and function.__module__ == module
        for hint in typing.get_type_hints(function, include_extras=True).values()
        for option in getattr(hint, "__metadata__", ())
        if Path in (typing.get_args(hint)[0], *typing.get_args(typing.get_args(hint)[0]))
    ]
    assert found and [str(option.parser("~/x")) for option in found] == ["elsewhere/x"] * len(found)


def test_help_and_dry_run_need_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise RuntimeError('a broken torch')\n")
    shown = harness("--help", path=tmp_path)
    assert shown.returncode == 0 and "finetune" in shown.stdout
    planned = harness("train", "--config", BASE, "--dry-run", folder=tmp_path, path=tmp_path)
    assert planned.returncode == 0, planned.stderr


def test_dry_run_prints_a_config_that_can_be_read_and_touches_nothing(tmp_path):
    result = harness(
        "finetune", "--config", BASE, "--set", "name=mine", "--limit-steps", "7", "--dry-run", folder=tmp_path
    )
    plan = yaml.safe_load(result.stdout)
    assert plan["name"] == "mine-freezed" and plan["data"]["set"] == "concept"
    assert "# steps: 7 of 40000" in result.stdout and "# starts from: runs/mine, checkpoint newest" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_key_is_exit_2():
    result = harness("train", "--config", BASE, "--set", "optim.g_lrr=1")
    assert result.returncode == 2 and result.stdout == ""
    assert "optim.g_lrr: found" in result.stderr and "Traceback" not in result.stderr


@pytest.fixture
def engine(monkeypatch) -> dict:
    """Stands for the native engine: what the command line calls it with."""
    calls: dict = {}

    def train_run(config, **options):
        calls.update(name=config.name, **options)
        return Path("runs") / config.name

    module = types.ModuleType("harness.native.train")
    module.train_run = module.finetune_run = train_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "harness.native.train", module)
    return calls


def test_options_reach_the_engine_and_its_folder_is_printed(engine):
    arguments = ["train", "--config", BASE, "--set", "name=a", "--limit-steps", "3", "--allow-config-change"]
    assert CliRunner().invoke(command_line.app, arguments).output.splitlines()[-1] == "runs/a"
    assert engine == {"name": "a", "limit_steps": 3, "allow_config_change": True}
    arguments = ["finetune", "--config", BASE, "--set", "name=a", "--from-checkpoint", "step_000100"]
    CliRunner().invoke(command_line.app, arguments)
    assert engine["checkpoint"] == "step_000100" and engine["limit_steps"] is None


def test_only_the_first_of_several_processes_prints_the_folder(engine, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert CliRunner().invoke(command_line.app, ["train", "--config", BASE]).output == ""


@pytest.mark.parametrize("code", [0, 2, 75])
def test_the_launcher_keeps_exit_codes(code, tmp_path):
    """Two processes through torchrun; a stand-in for the harness ends with the code."""
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    # One write: print() makes several, and two processes would mix theirs.
    main = "import os, sys\nos.write(1, f'rank {os.environ[\"RANK\"]} {sys.argv[1:]}\\n'.encode())\n"
    (tmp_path / "harness" / "__main__.py").write_text(f"{main}sys.exit({code})\n")
    words = ("harness.launch", "2", "train", "--config", "configs/demo.yaml")
    result = run_module(*words, folder=tmp_path, path=tmp_path)
    assert result.returncode == code, result.stderr
    assert "rank 0 ['train', '--config', 'configs/demo.yaml']" in result.stdout and "Traceback" not in result.stderr


def test_studiogan_starts_its_processes_itself(monkeypatch):
    calls: dict = {}
    module = types.ModuleType("harness.studiogan.engine")
    module.train_run = lambda config, **options: calls.update(options) or Path("runs/x")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "harness.studiogan.engine", module)
    with pytest.raises(SystemExit) as end:
        launch("2", ["train", "--config", BASE, "--set", "engine=studiogan", "--limit-steps", "5"])
    assert end.value.code == 0
    assert calls == {"limit_steps": 5, "allow_config_change": False, "processes": 2}
    result = harness("train", "--config", BASE, "--processes", "2")
    assert result.returncode == 2 and "--processes: found 2, allowed 1 with engine: native" in result.stderr


def test_a_wrong_number_of_processes_is_exit_2():
    result = run_module("harness.launch", "many", "train")
    assert result.returncode == 2 and result.stderr.startswith("error: NPROC: found 'many'")
