"""Child processes of ours: what they may import, and why one of them failed."""

import os
import re

_TRACEBACK = "Traceback (most recent call last):"
_ENDING = re.compile(r"(?:\[[^\]]*\]: ?)?([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b.*)")
"""The last line of a traceback, behind the rank that torch's launcher may put before it."""


def child_environment() -> dict[str, str]:
    """This process's environment, without the working folder on the path of imports.

    `python -m` would put it first, and a `tasks.py` of the user's would be taken for ours.
    """
    return {**os.environ, "PYTHONSAFEPATH": "1"}


def first_cause(output: str) -> str | None:
    """The error that ends the first traceback of an output; else its first line with an error.

    What follows is usually other processes that failed because of it, and the launcher's summary.
    """
    lines = output.splitlines()
    starts = [row for row, line in enumerate(lines) if line.rstrip().endswith(_TRACEBACK)]
    for line in lines[starts[0] + 1 :] if starts else lines:
        if found := _ENDING.fullmatch(line.rstrip()):
            return found[1]
    return next((line.strip() for line in lines if "Error" in line), None)
