"""`pvar doctor`."""


def doctor() -> None:
    """Say what is installed, reachable and missing."""
