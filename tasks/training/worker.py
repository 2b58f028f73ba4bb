"""python -m tasks.training.worker FOLDER: one process of a training over several."""

import sys
from pathlib import Path

from tasks.training.processes import work

if __name__ == "__main__":
    work(Path(sys.argv[1]))
