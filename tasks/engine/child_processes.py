"""Child processes of ours: what they may import, and why one of them failed."""

import os
import re

_RANK = r"(?:\[[^\]]*\]: ?)?"
"""Which process wrote a line, as torch's launcher may put it before."""
_BEGINNING = re.compile(_RANK + r"Traceback \(most recent call last\):")
_ENDING = re.compile(_RANK + r"([A-Za-z_][\w.]*(?::.*)?)")
"""The last line of a traceback: not indented, an exception and perhaps its message."""


def child_environment() -> dict[str, str]:
    """This process's environment, without the working folder on the path of imports.

    `python -m` would put it first, as an empty entry of PYTHONPATH does, and a `tasks.py` of the
    user's would be taken for ours.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = os.pathsep.join(path for path in paths if os.path.isabs(path))
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": absolute}


def first_cause(output: str) -> str | None:
    """The error that ends the first traceback of an output; else its first line with an error.

    What follows is usually other processes that failed because of it, and the launcher's summary.
    """
    lines = output.splitlines()
    starts = [row for row, line in enumerate(lines) if _BEGINNING.fullmatch(line.rstrip())]
    # What a process died of has its rank; a library may have logged, and survived, others before.
    starts.sort(key=lambda row: not lines[row].startswith("["))
    for line in lines[starts[0] + 1 :] if starts else ():
        if found := _ENDING.fullmatch(line.rstrip()):
            return found[1]
    return next((line.strip() for line in lines if "Error" in line), None)
