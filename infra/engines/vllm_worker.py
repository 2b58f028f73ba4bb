"""Extension of vLLM's worker processes. Only they import this module, by its name.

A process that is killed with -9 cannot stop its engine. vLLM's processes would then wait for
requests forever and keep the GPU's memory, which the next run needs. So every worker watches the
process that started the engine, and ends with it, together with the engine's core.
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
        """Seed all random generators that are used for sampling."""
        from vllm.utils.torch_utils import set_random_seed

        set_random_seed(seed)


def _end_with(owner: int) -> None:
    """Wait until the owner ends, then kill the engine's core and this worker."""
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
