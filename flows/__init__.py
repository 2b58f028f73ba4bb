"""Prefect flows, and the place where everything is put together; the command line."""
