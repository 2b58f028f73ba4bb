"""The process that holds a lease, and whether it is alive as far as that is seen from here."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Holder(BaseModel):
    """The process that holds a lease, so that others on the same machine see if it is alive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    boot_id: str
    """Linux's id of the current boot; empty if there is none."""
    pid_namespace: str
    """Process id namespace, which differs between containers on one machine."""
    pid: int
    started_ticks: int
    """Start of the process in clock ticks after boot, because process ids are reused."""


def this_process() -> Holder:
    """This process as a holder."""
    return Holder(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        started_ticks=_started_ticks(os.getpid()) or 0,
    )


def is_dead(holder: Holder) -> bool:
    """Whether the holder ran on this machine and has ended; False if unknown."""
    return ran_here(holder) and _started_ticks(holder.pid) != holder.started_ticks


def ran_here(holder: Holder) -> bool:
    """Whether the holder runs or ran on this machine, where its process can be seen."""
    return (
        holder.boot_id != ""
        and holder.host == socket.gethostname()
        and (holder.boot_id, holder.pid_namespace) == (_boot_id(), _pid_namespace())
    )


def _started_ticks(pid: int) -> int | None:
    """When the process started; None if it does not exist or is a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): "pid (name) state …", the start is field 22; the name may hold anything.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[22 - 3])


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _pid_namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""
