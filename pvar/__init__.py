"""Preference variance: the maths, the records and the configuration (numpy and pydantic only)."""

from pvar.variance import preference_variance, preference_variance_stderr

__all__ = ["preference_variance", "preference_variance_stderr"]
