"""Preference variance: the maths, the records and the configuration (numpy and pydantic only)."""
