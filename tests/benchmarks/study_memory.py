"""Whether memory stays flat over many trainings: the processes of a study that runs (issue 19.1).

python tests/benchmarks/study_memory.py PID [--every 5]

PID is the process of `pvar compare`, which runs already; it is only read from /proc. A line is
printed at each end of a member of the study (the shared artifacts, then each training, a process of
its own): resident memory of `pvar compare` and of its temporary Prefect server at that time, and
the most that the member ever held, in MiB. At the end of PID, or at Ctrl-C, the most of each.
"""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

from machine import describe_machine

COLUMNS = ("members ended", "minutes", "member", "its peak", "pvar compare", "its peak", "server")


def memory(pid: int, key: str) -> float | None:
    """A line of /proc/PID/status in MiB: VmRSS, held now, or VmHWM, the most so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    kib = next((line.split()[1] for line in lines if line.startswith(f"{key}:")), None)
    return None if kib is None else int(kib) / 1024


def children(pid: int) -> dict[int, list[str]]:
    """Command lines of the processes that any thread of the process started."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def name_member(command: list[str]) -> str | None:
    """The name in `python -m flows.study_member STUDY NAME`; None for another process."""
    return command[4] if command[1:3] == ["-m", "flows.study_member"] else None


def shown(mib: float | None) -> str:
    return "?" if mib is None else f"{mib:,.0f}"


def watch(pid: int, seconds_between: float) -> None:
    began = time.monotonic()
    peaks: dict[int, float] = {}  # of each member that runs
    names: dict[int, str] = {}
    ended: list[float] = []
    while (parent := memory(pid, "VmRSS")) is not None:
        parent_peak = memory(pid, "VmHWM")
        running = children(pid)
        server = next((p for p, c in running.items() if "flows.temporary_server" in c), None)
        for child, command in running.items():
            name, peak = name_member(command), memory(child, "VmHWM")
            if name is not None and peak is not None:
                names[child], peaks[child] = name, peak
        for child in [c for c in peaks if c not in running]:
            ended.append(peaks.pop(child))
            row = (
                f"{len(ended)}",
                f"{(time.monotonic() - began) / 60:.1f}",
                names[child],
                shown(ended[-1]),
                shown(parent),
                shown(parent_peak),
                shown(None if server is None else memory(server, "VmRSS")),
            )
            print("| " + " | ".join(row) + " |", flush=True)
        time.sleep(seconds_between)
    if ended:
        print(f"\nthe most of {len(ended)} members: {max(ended):,.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pid", type=int)
    parser.add_argument("--every", type=float, default=5, help="seconds between two looks")
    arguments = parser.parse_args()
    print(f"{describe_machine()}, {datetime.now(UTC):%Y-%m-%d}\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * (len(COLUMNS) - 1), flush=True)
    watch(arguments.pid, arguments.every)


if __name__ == "__main__":
    main()
