"""The name of the current user or pipeline, for the history of promotions."""

import getpass
import os
import socket


def whoami() -> str:
    """PVAR_ACTOR (set by a person or by CI), else user@host."""
    return os.environ.get("PVAR_ACTOR") or f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())
