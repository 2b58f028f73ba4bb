"""Runs nodes of the small workflow in a process of their own, which a test may kill.

python -m tests.stage_process HOME CHANGES HOLD NODE…

CHANGES is the JSON of what differs. The process waits for ever where it would put an object whose
key ends with HOLD, a pattern of `fnmatch`: so it is still there when the test kills it, however
late that is.
"""

import json
import sys
import threading
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from pvar.ports import Store
from tests.workflow import start_workflow


class HeldStore:
    """A store in which one object is never put; the rest is the other store's."""

    def __init__(self, store: Store, held: str) -> None:
        self._store = store
        self._held = held

    def write(self, key: str, data: bytes) -> None:
        self._wait_at(key)
        self._store.write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._wait_at(key)
        return self._store.create(key, data)

    def _wait_at(self, key: str) -> None:
        if fnmatch(key, f"*{self._held}"):
            threading.Event().wait()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


if __name__ == "__main__":
    home, changes, held, *names = sys.argv[1:]
    flow = start_workflow(Path(home), **json.loads(changes))
    store = cast(Store, HeldStore(flow.store, held))
    replace(flow, wiring=replace(flow.wiring, store=store)).make(*names)
