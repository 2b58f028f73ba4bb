"""A service that starts a process in a session of its own, as a worker does, and waits or dies.

python -m tests.services.spawner FILE    writes the process's id into FILE; without FILE it dies
"""

import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    file = Path(sys.argv[1])
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    )
    file.write_text(str(child.pid))
    while file.exists():
        time.sleep(0.05)
    print("out of patience")
    sys.exit(3)
