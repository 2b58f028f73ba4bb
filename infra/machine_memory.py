"""How much memory this machine has for models: main memory, and that of each visible GPU.

In a container the limit of its control group counts (version 2 or 1), not the host's memory.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


class Memory(NamedTuple):
    """Sizes in bytes."""

    total: int
    """The most that a process could ever use, swap space included."""
    free: int
    """What could be used now."""


def read_memory() -> Memory | None:
    """Main memory; None if it is unknown (psutil comes with the packages that load models)."""
    try:
        import psutil
    except ImportError:
        return None
    main, swap_bytes = psutil.virtual_memory(), psutil.swap_memory().total
    if sys.platform == "darwin":  # it makes more swap space when it needs it
        swap_bytes += psutil.disk_usage("/").free
    found = Memory(main.total + swap_bytes, main.available)
    limit = read_cgroup_memory(swap_bytes=swap_bytes)
    if limit is None:
        return found
    return Memory(min(found.total, limit.total), min(found.free, limit.free))


def read_cgroup_memory(
    *, swap_bytes: int, own: Path = OWN_CGROUP, cgroups: Path = CGROUPS
) -> Memory | None:
    """The tightest limit of this process' control groups; None if there is none.

    `swap_bytes`: swap space of the machine, of which a limit of its own may allow less.
    """
    limits = list(_limits(own, cgroups, swap_bytes))
    if not limits:
        return None
    return Memory(min(limit.total for limit in limits), min(limit.free for limit in limits))


def read_gpu_memory() -> list[int]:
    """Bytes of each visible GPU, according to PyTorch; none without a GPU.

    Only properties are read: a context on the GPU would take memory from what runs there.
    """
    import torch

    if not torch.cuda.is_available():
        return []
    return [
        int(torch.cuda.get_device_properties(device).total_memory)
        for device in range(torch.cuda.device_count())
    ]


def _limits(own: Path, cgroups: Path, swap_bytes: int) -> Iterator[Memory]:
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folders, names = _with_parents(cgroups, path), _VERSION_2
        elif "memory" in controllers.split(","):
            folders, names = _with_parents(cgroups / "memory", path), _VERSION_1
        else:
            continue
        for folder in folders:
            limit, used = _number(folder / names.limit), _number(folder / names.used)
            if limit is None or used is None:
                continue
            swap = _number(folder / names.swap) if names.swap else None
            cache = _entry(folder / "memory.stat", names.cache)
            allowed_swap = swap_bytes if swap is None else min(swap, swap_bytes)
            yield Memory(limit + allowed_swap, max(0, limit - used + cache))


class _Names(NamedTuple):
    """Files of a control group."""

    limit: str
    used: str
    swap: str | None
    cache: str
    """Entry of memory.stat: file pages that are given up when memory is short."""


_VERSION_2 = _Names("memory.max", "memory.current", "memory.swap.max", "inactive_file")
_VERSION_1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", None, "total_inactive_file")


def _with_parents(root: Path, path: str) -> list[Path]:
    """The group and those around it. In a container its own group is often mounted as the root."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return [root.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]


def _number(file: Path) -> int | None:
    """The number in a file; None without the file, and for `max`."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _entry(file: Path, name: str) -> int:
    try:
        entries = dict(line.split(" ", 1) for line in file.read_text().splitlines())
        return int(entries.get(name, 0))
    except (OSError, ValueError):
        return 0
