"""Child processes: their import path, and the cause of a failure."""

import os
import re
import threading

_RANK = r"(?:\[[^\]]*\]: ?)?"
"""Prefix of a line with the process that wrote it, as torch's launcher adds it."""
_BEGINNING = re.compile(_RANK + r"Traceback \(most recent call last\):")
_ENDING = re.compile(_RANK + r"([A-Za-z_][\w.]*(?::.*)?)")
"""The last line of a traceback: not indented, an exception with an optional message."""


def child_environment() -> dict[str, str]:
    """This process's environment, without the working folder on the import path.

    `python -m` would put it first, as an empty entry of PYTHONPATH does, and a user's `tasks.py`
    would be imported instead of this package.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = os.pathsep.join(path for path in paths if os.path.isabs(path))
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": absolute}


def end_with_parent() -> None:
    """End this process when its standard input ends: the parent, which holds the other end, died
    or closed it. Returns at once."""
    threading.Thread(target=_end_at_end_of_input, daemon=True).start()


def _end_at_end_of_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def first_cause(output: str) -> str | None:
    """The error at the end of the first traceback in an output, or its first line with an error.

    Later lines are usually from processes that failed as a consequence, and from the launcher.
    """
    lines = output.splitlines()
    starts = [row for row, line in enumerate(lines) if _BEGINNING.fullmatch(line.rstrip())]
    # What a process died of has its rank; a library may have logged, and survived, others before.
    starts.sort(key=lambda row: not lines[row].startswith("["))
    for line in lines[starts[0] + 1 :] if starts else ():
        if found := _ENDING.fullmatch(line.rstrip()):
            return found[1]
    return next((line.strip() for line in lines if "Error" in line), None)
