"""Blocks of memory that a process frees, and takes again."""

import platform
import resource
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes
from resource import RUSAGE_SELF, getrusage
from tasks.engine.cpu_memory import keep_freed_memory

ctypes.CDLL("libc.so.6").prctl(41, 1, 0, 0, 0)  # no huge pages, which some machines give unasked

def new_pages():
    before = getrusage(RUSAGE_SELF).ru_minflt
    bytearray(64 << 20)
    return getrusage(RUSAGE_SELF).ru_minflt - before

new_pages()
given_back = new_pages()
keep_freed_memory()
new_pages()
print(given_back, new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to")
def test_a_large_block_is_used_again_without_new_pages() -> None:
    num_pages = (64 << 20) // resource.getpagesize()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    given_back, kept = map(int, done.stdout.split())
    assert given_back >= num_pages
    assert kept < num_pages / 200
