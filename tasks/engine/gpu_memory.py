"""Giving a GPU's memory back between stages that run in one process.

A stage's models go with its worker, but torch keeps their memory for the next tensors of this
process. Who comes next may not be this process: vLLM's engine wants most of the GPU for itself, and
so do the processes that train beside the one that computed the reference.
"""

import gc
import sys


def free_gpu_memory() -> None:
    """Return what no tensor occupies; nothing where torch is not loaded or uses no GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()  # a trainer and its model refer to each other
        torch.cuda.empty_cache()
