"""Stand-ins for vLLM's processes: an owner, an engine's core, and perhaps a worker below it.

python -m tests.services.engine_processes DEPTH DELAY     DEPTH 0: the core is the worker, too
"""

import multiprocessing
import os
import sys
import time
from importlib import import_module

from infra.engines.vllm_sampler import OWNER


def start(depth: int, delay_seconds: float) -> None:
    """A process of the engine: after a while the last of them does what vLLM's worker does."""
    if depth:
        _spawn(depth - 1, delay_seconds)
    else:
        print(f"started {os.getpid()} {os.getppid()}", flush=True)
        time.sleep(delay_seconds)
        import_module("infra.engines.vllm_worker")
        if not delay_seconds:
            print("watching", flush=True)
    time.sleep(3600)


def _spawn(depth: int, delay_seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    context.Process(target=start, args=(depth, delay_seconds)).start()


if __name__ == "__main__":
    os.environ[OWNER] = str(os.getpid())
    _spawn(int(sys.argv[1]), float(sys.argv[2]))
    time.sleep(3600)
