"""Prefect flows, the command line, and where everything is put together."""

import atexit
import gc
import logging
import os

# A worker's process shows in Prefect's UI what our loggers say (PREFECT_LOGGING_EXTRA_LOGGERS in
# infra/work_pools), but leaves their level to the root logger's, which is WARNING.
for _name in ("flows", "tasks", "infra", "pvar"):
    logging.getLogger(_name).setLevel(logging.INFO)

# MLflow and Prefect would tell their makers how they are used, each in its own way.
os.environ.setdefault("DO_NOT_TRACK", "true")

# PyTorch's threads wait for each other thousands of times a second. By default they spin for long
# before they sleep, which beside other work takes the processor from the very thread that is waited
# for; to sleep at once is slower where there is no other work (decision 0013).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# Imports make a million objects that stay. To look for garbage among them again and again, and once
# more at the end, takes a fifth of the time that a process needs to start and to end.
gc.set_threshold(100_000, 20, 10)
atexit.register(gc.freeze)
