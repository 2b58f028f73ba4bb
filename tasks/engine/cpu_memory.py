"""Memory of a training on the CPU: keep freed blocks for the next step.

By default glibc maps every block of more than 32 MB anew and unmaps it when freed, and the kernel
fills each new page with zeros. A step allocates dozens of such blocks (logits are tokens times
vocabulary), and filling them takes longer than the computation. The cost is that the process never
shrinks (the demo takes at most 4.8 GiB, and 3.9 GiB if blocks are unmapped).
"""

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Constants of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Keep freed memory for the rest of this process. Without glibc, do nothing."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
