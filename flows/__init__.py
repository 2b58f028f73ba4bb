"""Prefect flows, the command line, and the wiring of all parts."""

import atexit
import gc
import logging
import os

# Prefect's UI shows the records of these loggers (PREFECT_LOGGING_EXTRA_LOGGERS in
# infra/work_pools). In a worker's process they would inherit the root logger's level, WARNING.
for _name in ("flows", "tasks", "infra", "pvar"):
    logging.getLogger(_name).setLevel(logging.INFO)

# Telemetry of MLflow and Prefect is off by default.
os.environ.setdefault("DO_NOT_TRACK", "true")

# PyTorch's OpenMP threads wait for each other thousands of times a second. By default they spin for
# a long time before they sleep. On a busy machine, spinning takes the CPU from the thread that they
# wait for. On an idle machine, sleeping at once is slower. This count is the compromise
# (decision 0013).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# Imports create about a million permanent objects. Collecting garbage among them repeatedly, and
# again at exit, takes a fifth of a process's startup and exit time.
gc.set_threshold(100_000, 20, 10)
atexit.register(gc.freeze)
