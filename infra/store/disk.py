"""Explain file system errors: the cause and what to do."""

import errno
import shutil
from contextlib import suppress
from pathlib import Path


def cause(error: OSError, folder: Path, or_else: str) -> str:
    """The error as a sentence for the user; `folder` is where it happened.

    `or_else` is what else to do if the folder itself is the cause.
    """
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"{error.strerror} ({_space(folder)}); free some space or {or_else}"
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return f"{error.strerror}; make {folder} writable or {or_else}"
        case errno.ENOTDIR | errno.EISDIR | errno.EEXIST:
            return f"{error.strerror}: {error.filename}; a file stands where a folder must be"
        case _:
            return f"{error.strerror} ({error.filename})"


def _space(folder: Path) -> str:
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        return f"{usage.free >> 20} of {usage.total >> 20} MiB are free at {folder}"
    return f"at {folder}"
