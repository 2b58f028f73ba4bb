"""Runs nodes of the small workflow in a process of their own, which a test may kill.

python -m tests.stage_process HOME CHANGES NODE…    CHANGES is the JSON of what differs
"""

import json
import sys
from pathlib import Path

from tests.workflow import start_workflow

if __name__ == "__main__":
    home, changes, *names = sys.argv[1:]
    start_workflow(Path(home), **json.loads(changes)).make(*names)
