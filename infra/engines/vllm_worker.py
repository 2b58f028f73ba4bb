"""What is added to vLLM's worker processes; they import this module by its name, nobody else does.

A process that is killed at once cannot end its engine. Left alone, vLLM's processes would wait for
requests for ever and hold the memory of the GPU, which the same command needs again. So every
worker watches the process that started the engine, and takes the engine's core with it.
"""

import multiprocessing
import os
import select
import signal
import threading

from infra.engines.vllm_sampler import OWNER


class WorkerExtension:
    """vLLM's `worker_extension_cls`."""

    def reseed(self, seed: int) -> None:
        """Seed every generator that tokens are drawn with."""
        from vllm.utils.torch_utils import set_random_seed

        set_random_seed(seed)


def _end_with(owner: int) -> None:
    """Wait for the owner's end, then kill the engine's core and this worker (or both in one)."""
    try:
        descriptor = os.pidfd_open(owner)
    except ProcessLookupError:
        pass  # it died while this process started
    except OSError:
        return  # an old kernel, or a sandbox that forbids it
    else:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
    core = multiprocessing.parent_process()
    if core is not None and core.pid not in (None, owner) and core.is_alive():
        os.kill(core.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


_owner = int(os.environ.get(OWNER, os.getpid()))
# vLLM can be told to run inside its owner; and process descriptors are Linux's.
if _owner != os.getpid() and hasattr(os, "pidfd_open"):
    threading.Thread(target=_end_with, args=(_owner,), daemon=True).start()
