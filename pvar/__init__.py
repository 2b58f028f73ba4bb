"""Preference variance: the maths, the records and the configuration (numpy and pydantic only)."""

from pvar.variance import preference_variance, preference_variance_stderr, variance_table

__all__ = ["preference_variance", "preference_variance_stderr", "variance_table"]


def __getattr__(name: str) -> str:
    """`__version__`, read when it is asked for: a copy of the tree need not be installed."""
    if name == "__version__":
        from importlib import metadata

        return metadata.version("pvar")
    raise AttributeError(f"module 'pvar' has no attribute {name!r}")
