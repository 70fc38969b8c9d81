"""`make doctor`: what is installed, what is missing, what the machine can do. Standard library only.

Requirements come from pyproject.toml. Every package is imported, because a broken one (a torchvision built for another
torch, say) is installed but raises an error.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import sys
from pathlib import Path

from harness.studiogan.checkout import describe as describe_studiogan

ROOT = Path(__file__).resolve().parents[1]
DEMO_GIB = 1.1  # drawn and packed pictures, checkpoints of both runs
MODULES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "pytest-xdist": "xdist",
}  # import names that differ


def main() -> int:
    """Prints the report. Returns 0 if the core is complete, else 2."""
    print(f"python       {platform.python_version()}  {sys.executable}")
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        print("python: found another version, allowed 3.11 or 3.12, try PYTHON=/path/to/python3.12")
        return 2
    _print_machine()
    core, extras = read_requirements(ROOT / "pyproject.toml")
    print("\ncore")
    problems = {requirement: _print_package(requirement) for requirement in core}
    print("\nextras (optional)")
    for name, requirements in extras.items():
        lacking = [split_requirement(text)[0] for text in requirements if examine(text)[1]]
        print(f"  {name:<8} {'lacks ' + ', '.join(lacking) if lacking else 'complete'}")
    print("\ndevices")
    _print_devices()
    bad = {requirement: problem for requirement, problem in problems.items() if problem}
    if bad:
        print(f"\ncore: {len(bad)} of {len(core)} missing, broken or too old. To fix this:")
        print("  " + install_command(bad))
        return 2
    print("\ncore: complete")
    return 0


def read_requirements(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The core requirements and those of each extra, as `name>=1.2,<3`."""
    import tomllib  # since 3.11; an older Python must get as far as the version check

    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return project["dependencies"], project["optional-dependencies"]


def split_requirement(requirement: str) -> tuple[str, list[str]]:
    """`pyright[nodejs]>=1.1,<2` → (`pyright`, [`>=1.1`, `<2`])."""
    name, bounds = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(.*)", requirement.replace(" ", "")).groups()  # type: ignore[union-attr]
    return name, [bound for bound in bounds.split(",") if bound]


def module_of(requirement: str) -> str:
    """The import name of a requirement."""
    name, _ = split_requirement(requirement)
    return MODULES.get(name, name.replace("-", "_"))


def examine(requirement: str) -> tuple[str, str]:
    """(version or `-`, problem or "") of a package."""
    name, bounds = split_requirement(requirement)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "-"
    try:
        importlib.import_module(module_of(requirement))
    except ModuleNotFoundError as error:
        return version, "MISSING" if version == "-" else f"BROKEN: {_one_line(error)}"
    except (Exception, SystemExit) as error:  # a package may raise anything on import
        return version, f"BROKEN: {_one_line(error)}"
    wrong = [bound for bound in bounds if version != "-" and not version_fits(version, bound)]
    return version, f"needs {','.join(wrong)}" if wrong else ""


def version_fits(version: str, bound: str) -> bool:
    """Whether `2.13.0+cpu` satisfies `>=2.10` or `<3`; only release numbers are compared."""
    found, limit = (_release(text) for text in (version, bound.lstrip("<>=")))
    return found >= limit if bound.startswith(">=") else found < limit


def _release(version: str) -> list[int]:
    numbers = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in numbers.group().split(".")] if numbers else [0]
    while parts and parts[-1] == 0:
        parts.pop()
    return parts


def install_command(bad: dict[str, str]) -> str:
    """The pip command that installs missing and reinstalls broken packages. In: requirement → problem."""
    pinned = re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    pins = {name.lower(): version for name, version in pinned}
    names = [split_requirement(requirement)[0] for requirement in bad]
    wanted = [f"{name}=={pins[name]}" if name in pins else name for name in names]
    force = ["--force-reinstall"] if any(problem.startswith("BROKEN") for problem in bad.values()) else []
    return shlex.join([sys.executable, "-m", "pip", "install", *force, *wanted])


def _print_package(requirement: str) -> str:
    version, problem = examine(requirement)
    mark, name = "--" if problem else "ok", split_requirement(requirement)[0]
    print(f"  {mark}  {name:<14} {version:<14} {problem}".rstrip())
    return problem


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def _print_machine() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    disk = shutil.disk_usage(ROOT)
    info = Path("/proc/cpuinfo")
    text = info.read_text(errors="replace") if info.exists() else ""
    line = re.search(r"^(flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(line.group(2).split()) if line else set()
    bf16 = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    print(f"platform     {platform.platform()}")
    print(f"cores        {cores}")
    print(f"memory       {_memory_gib()}")
    free_gib = disk.free / 2**30
    room = f": too little for `make demo`, which needs about {DEMO_GIB} GiB" if free_gib < DEMO_GIB else ""
    print(f"disk         {free_gib:.1f} of {disk.total / 2**30:.0f} GiB free, in this checkout{room}")
    print(f"bf16 on CPU  {'yes: ' + ' '.join(bf16) if bf16 else 'no' if flags else 'unknown'}")


def _memory_gib() -> str:
    """Physical memory, or the container's limit if that is lower."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        sizes.append(int(text))
    return f"{min(sizes) / 2**30:.1f} GiB" + (" (limit of this container)" if min(sizes) < sizes[0] else "")


def _print_devices() -> None:
    try:
        import torch

        print(f"  torch        {torch.__version__}, built for CUDA {torch.version.cuda or 'no: CPU only'}")
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            bf16 = "yes" if device.major >= 8 else "no"
            print(f"  cuda:{index}       {device.name}, {device.total_memory / 2**30:.0f} GiB, bf16 {bf16}")
    except (Exception, SystemExit) as error:  # a broken torch or driver must not end the report
        print(f"  torch        BROKEN: {_one_line(error)}")
    print("\nStudioGAN (optional)")
    for line in describe_studiogan():
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
