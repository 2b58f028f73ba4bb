"""Release a GPU's memory between stages that run in one process.

A stage's models are freed with its worker, but torch keeps their memory for later tensors of this
process. The next stage may run in other processes: vLLM's engine needs most of the GPU, and so do
the training processes that follow the computation of the reference.
"""

import gc
import sys


def free_gpu_memory() -> None:
    """Release unused memory. If torch is not loaded or uses no GPU, do nothing."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()  # a trainer and its model refer to each other
        torch.cuda.empty_cache()
