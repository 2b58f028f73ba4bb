#!/opt/pvar/bin/python
"""Whether this container can work: its home can be written, its Prefect server answers.

Nothing of the project is imported: it runs every 30 seconds beside the work.
"""

import os
import sys
import tempfile
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 5


def find_fault() -> str | None:
    """What is wrong, or None."""
    home = os.environ["PVAR_HOME"]
    try:
        tempfile.TemporaryFile(dir=home).close()
    except OSError as error:
        return f"{home} cannot be written: {error.strerror}"
    if api := os.environ.get("PREFECT_API_URL"):
        try:
            urllib.request.urlopen(f"{api}/health", timeout=TIMEOUT_SECONDS).close()  # noqa: S310  the user's own address
        except (OSError, ValueError) as error:
            return f"the Prefect server at {api} does not answer: {error}"
    return None


if __name__ == "__main__":
    sys.exit(find_fault())
