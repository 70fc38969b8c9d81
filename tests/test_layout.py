"""Rules of the repository: imports, torch-free modules, names, lengths, and forbidden mentions."""

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("harness", "datasets", "scrapers", "blend")
# The folders of each package, lowest first: one imports from those before it and from the top of `harness`.
LAYERS = {
    "harness": (
        *("config", "storage", "images", "web", "runtime", "networks", "checkpoints", "features", "metrics"),
        *("native", "studiogan", "benchmarks"),
    ),
    "scrapers": ("crawl", "sites", "local"),
    "datasets": ("scan", "clean", "cifar10", "procedural", "pack", "report", "clinic", "train_shipped", "bench"),
    "blend": ("generator", "encoder", "measures", "inversion", "designs", "report", "demo", "studio"),
}
BASE_FILES = {"harness": ("cli", "errors", "files", "messages")}  # of a package's top, which its folders may import
NEED_TORCH = ("harness/images/tensors.py",)
WITHOUT_TORCH = ("harness.doctor", "harness.launch", "harness.__main__", "datasets.__main__", "datasets.pack.build_set")
WITHOUT_TORCH += ("datasets.scan.scan", "datasets.procedural.sets", "blend.__main__", "blend.demo.demo")
WITHOUT_TORCH += ("scrapers.__main__",)
STUDIOGAN_MODULES = {"data_utils", "inception_tf13", "loader", "metrics", "models", "sync_batchnorm", "utils", "worker"}
# What runs inside StudioGAN, and what takes its networks and losses into our process to compare with.
STUDIOGAN_DOORS = [*(ROOT / "harness/studiogan/shim").glob("*.py"), ROOT / "harness/studiogan/reference_modules.py"]
MAX_FILE_LINES, MAX_FOLDER_FILES = 500, 16


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tracked_files() -> list[Path]:
    """What the repository holds; in an unpacked archive, everything but what is made here."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    made = re.compile(r"^(\.venv[^/]*|\.git|data|runs|third_party)/|__pycache__|\.(pytest|ruff)_cache|\.hypothesis")
    return [p for p in ROOT.rglob("*") if p.is_file() and not made.search(p.relative_to(ROOT).as_posix())]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, with dots."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


def run_python(code: str, **env: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    result = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def modules_of(path: Path) -> Iterator[str]:
    """What a file imports of ours, each as the path of a module or folder below the root, with slashes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in PACKAGES:
            folder = node.module.replace(".", "/")
            inside = [f"{folder}/{alias.name}" for alias in node.names]
            modules = [name for name in inside if (ROOT / f"{name}.py").exists() or (ROOT / name).is_dir()]
            yield from modules or [folder]
        elif isinstance(node, ast.Import):
            yield from (alias.name.replace(".", "/") for alias in node.names if alias.name.startswith(PACKAGES))


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_downward(package):
    folders = LAYERS[package]
    assert {path.name for path in (ROOT / package).iterdir() if list(path.glob("*.py"))} == set(folders)
    for path in python_files(package):
        own = path.relative_to(ROOT).parts[1]
        for module in modules_of(path):
            top, _, rest = module.partition("/")
            inner = rest.partition("/")[0]
            where = f"{path.relative_to(ROOT)} imports {module}"
            assert top in ("harness", package), where
            if top == package and own in folders and inner != own:
                below = folders[: folders.index(own)]
                assert inner in (*below, *BASE_FILES.get(package, ())), where


def test_studiogan_is_imported_through_its_doors_alone():
    for path in python_files(*(name for name in PACKAGES)):
        foreign = {name.partition(".")[0] for name in imported(path)} & STUDIOGAN_MODULES
        assert not foreign or path in STUDIOGAN_DOORS, f"{path.relative_to(ROOT)} imports {foreign}"


def floor() -> list[str]:
    """What everything may stand on, and what imports no torch."""
    paths = [*python_files(*(f"harness/{name}" for name in ("config", "storage", "images", "web")))]
    names = [
        path.relative_to(ROOT).as_posix()
        for path in [*paths, *(ROOT / f"harness/{name}.py" for name in BASE_FILES["harness"])]
    ]
    return [name.removesuffix(".py").replace("/", ".") for name in names if name not in NEED_TORCH]


def test_the_floor_names_no_torch():
    for module in floor():
        names = {name.partition(".")[0] for name in imported(ROOT / f"{module.replace('.', '/')}.py")}
        assert not names & {"torch", "torchvision"}, module


def test_the_floor_and_the_dataset_stage_pull_in_no_torch():
    lines = [f"import {module.removesuffix('.__init__')}" for module in (*floor(), *WITHOUT_TORCH)]
    loaded = run_python("\n".join([*lines, "import sys", "print(*sys.modules)"])).split()
    assert "harness.storage.rundir" in loaded
    assert not [name for name in loaded if name.partition(".")[0] in ("torch", "torchvision", "tensorboard")]


CORE = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in python_files(*PACKAGES)
    if path not in STUDIOGAN_DOORS
]


@pytest.mark.parametrize("kind", ["broken", "absent"])
def test_everything_imports_whatever_torchvision_is(kind, tmp_path):
    """A torchvision built for another torch raises RuntimeError when it is imported; it is worse than none."""
    error = "RuntimeError('operator torchvision::nms does not exist')" if kind == "broken" else "ImportError('absent')"
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise {error}\n")
    lines = ["import importlib", f"for name in {CORE}: importlib.import_module(name)", "print('all')"]
    assert run_python("\n".join(lines), PYTHONPATH=f"{tmp_path}:{ROOT}").split() == ["all"]


def test_no_file_is_named_after_nothing():
    vague = {"utils", "util", "misc", "common", "helpers", "helper"}
    assert not [path for path in python_files(*PACKAGES, "tests") if vague & set(path.stem.split("_"))]


def test_files_are_short_and_folders_small():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in python_files(*PACKAGES)
    }
    assert {name: count for name, count in lengths.items() if count > MAX_FILE_LINES} == {}
    folders = Counter(path.parent.relative_to(ROOT).as_posix() for path in python_files(*PACKAGES))
    assert {name: count for name, count in folders.items() if count > MAX_FOLDER_FILES} == {}


def test_tests_mirror_the_folders():
    """One folder of tests for each folder of code that has any; no packages, which pytest would import twice."""
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in python_files("tests")}
    elsewhere = {"golden", *(name for name in folders if name.partition("/stand_in")[1])}
    assert {name for name in folders - elsewhere if not (ROOT / name).is_dir()} == set()
    assert not list((ROOT / "tests").rglob("__init__.py"))


# Written in pieces, so that this file does not mention them.
MACHINE_PATHS = re.compile("|".join(["/ho" + "me/", "/Use" + "rs/", "/ro" + "ot/", "/wo" + "rk/", "/t" + "mp/"]))
REGISTRIES = re.compile(r"|".join([r"pypi\." + "org", r"pythonhosted\." + "org", r"npmjs\." + "(org|com)"]))
SHARED_FOLDER = "../sha" + "red"


def test_no_file_mentions_a_machine_or_a_registry():
    found = []
    for path in tracked_files():
        name = path.relative_to(ROOT).as_posix()
        content = path.read_bytes()
        if b"\0" in content[:8192]:  # a picture or weights
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            shared = SHARED_FOLDER in line and name != ".ci/run"
            if MACHINE_PATHS.search(line) or REGISTRIES.search(line) or shared:
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []


def test_what_is_made_here_is_ignored_and_our_code_is_not():
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    made = [".venv/x", ".venv-studiogan/x", "data/raw/a.png", "runs/demo/log.txt", "third_party/x"]
    ours = ["datasets/data.py", "harness/native/data.py", "tests/datasets/runs.py", "docs/demo_grid.png"]
    checked = subprocess.run(
        ["git", "check-ignore", "--no-index", *made, *ours], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.stdout.split() == made
