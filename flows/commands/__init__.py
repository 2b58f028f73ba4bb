"""Commands of `pvar` that work on files alone: plain functions, registered in `flows/cli.py`."""
