"""`make doctor`: what is installed, what is missing, what the machine can do. Needs the standard library alone.

Requirements come from pyproject.toml. Every package is really imported: one that is present but broken (a
torchvision built for another torch, say) raises something else than ImportError; that its files exist proves nothing.
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
DEMO_GIB = 1.1  # its drawn and packed pictures, and the checkpoints of both runs
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn", "pytest-xdist": "xdist"}  # named otherwise


def main() -> int:
    """Prints the whole list. Returns 0 when the core is complete, else 2."""
    print(f"python       {platform.python_version()}  {sys.executable}")
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        print("python: found another version, allowed 3.11 or 3.12, try PYTHON=/path/to/python3.12")
        return 2
    _print_machine()
    core, extras = read_requirements(ROOT / "pyproject.toml")
    print("\ncore")
    faults = {requirement: _print_package(requirement) for requirement in core}
    print("\nextras (optional)")
    for name, requirements in extras.items():
        lacking = [split_requirement(text)[0] for text in requirements if examine(text)[1]]
        print(f"  {name:<8} {'lacks ' + ', '.join(lacking) if lacking else 'complete'}")
    print("\ndevices")
    _print_devices()
    bad = {requirement: fault for requirement, fault in faults.items() if fault}
    if bad:
        print(f"\ncore: {len(bad)} of {len(core)} missing, broken or too old. This mends it:")
        print("  " + mending_command(bad))
        return 2
    print("\ncore: complete")
    return 0


def read_requirements(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The core requirements and those of each extra, as `name>=1.2,<3` texts."""
    import tomllib  # since 3.11, and an older Python must get as far as being told so

    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return project["dependencies"], project["optional-dependencies"]


def split_requirement(requirement: str) -> tuple[str, list[str]]:
    """`pyright[nodejs]>=1.1,<2` → (`pyright`, [`>=1.1`, `<2`])."""
    name, bounds = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(.*)", requirement.replace(" ", "")).groups()  # type: ignore[union-attr]
    return name, [bound for bound in bounds.split(",") if bound]


def module_of(requirement: str) -> str:
    """What a requirement's package is imported as."""
    name, _ = split_requirement(requirement)
    return MODULES.get(name, name.replace("-", "_"))


def examine(requirement: str) -> tuple[str, str]:
    """One package: its version or `-`, and what is wrong with it or an empty text."""
    name, bounds = split_requirement(requirement)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "-"
    try:
        importlib.import_module(module_of(requirement))
    except ModuleNotFoundError as error:
        return version, "MISSING" if version == "-" else f"BROKEN: {_one_line(error)}"
    except (Exception, SystemExit) as error:  # whatever a foreign package raises on import
        return version, f"BROKEN: {_one_line(error)}"
    wrong = [bound for bound in bounds if version != "-" and not version_fits(version, bound)]
    return version, f"needs {','.join(wrong)}" if wrong else ""


def version_fits(version: str, bound: str) -> bool:
    """Whether `2.13.0+cpu` satisfies `>=2.10` or `<3`; release numbers alone are compared."""
    found, limit = (_release(text) for text in (version, bound.lstrip("<>=")))
    return found >= limit if bound.startswith(">=") else found < limit


def _release(version: str) -> list[int]:
    numbers = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in numbers.group().split(".")] if numbers else [0]
    while parts and parts[-1] == 0:
        parts.pop()
    return parts


def mending_command(bad: dict[str, str]) -> str:
    """The one command that installs what is missing and puts broken packages in anew. In: requirement → fault."""
    pins = dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    pins = {name.lower(): version for name, version in pins.items()}
    names = [split_requirement(requirement)[0] for requirement in bad]
    wanted = [f"{name}=={pins[name]}" if name in pins else name for name in names]
    anew = ["--force-reinstall"] if any(fault.startswith("BROKEN") for fault in bad.values()) else []
    return shlex.join([sys.executable, "-m", "pip", "install", *anew, *wanted])


def _print_package(requirement: str) -> str:
    version, fault = examine(requirement)
    mark, name = "--" if fault else "ok", split_requirement(requirement)[0]
    print(f"  {mark}  {name:<14} {version:<14} {fault}".rstrip())
    return fault


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def _print_machine() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    disk = shutil.disk_usage(ROOT)
    flags = _cpu_flags()
    bf16 = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    print(f"platform     {platform.platform()}")
    print(f"cores        {cores}")
    print(f"memory       {_memory_gib()}")
    free_gib = disk.free / 2**30
    room = f": too little for `make demo`, which takes about {DEMO_GIB} GiB" if free_gib < DEMO_GIB else ""
    print(f"disk         {free_gib:.1f} of {disk.total / 2**30:.0f} GiB free, where this checkout lies{room}")
    print(f"bf16 on CPU  {'yes: ' + ' '.join(bf16) if bf16 else 'no' if flags else 'unknown'}")


def _memory_gib() -> str:
    """Physical memory, or the container's limit where that is less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        sizes.append(int(text))
    return f"{min(sizes) / 2**30:.1f} GiB" + (" (limit of this container)" if min(sizes) < sizes[0] else "")


def _cpu_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    text = info.read_text(errors="replace") if info.exists() else ""
    line = re.search(r"^(flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(line.group(2).split()) if line else set()


def _print_devices() -> None:
    try:
        import torch

        print(f"  torch        {torch.__version__}, built for CUDA {torch.version.cuda or 'no: CPU only'}")
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            bf16 = "yes" if device.major >= 8 else "no"
            print(f"  cuda:{index}       {device.name}, {device.total_memory / 2**30:.0f} GiB, bf16 {bf16}")
    except (Exception, SystemExit) as error:  # a broken torch or driver must not end the list
        print(f"  torch        BROKEN: {_one_line(error)}")
    print("\nStudioGAN (optional)")
    for line in describe_studiogan():
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
