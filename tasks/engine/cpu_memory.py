"""Memory of a training on the CPU: what is freed is kept for the next step.

By default glibc maps every block of more than 32 MB anew and gives it back when freed, and the
kernel fills each new page with zeros. A step makes dozens of such blocks (logits are tokens times
vocabulary), and to fill them takes longer than what is computed in them. The price: the process
stays as large as it once was (the demo takes 4.8 GiB at most, with blocks given back 3.9).
"""

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """For the rest of this process; nothing where the C library is another one."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
