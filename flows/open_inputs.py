"""Opens artifacts for a command that reads what earlier stages made."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flows.wiring import Wiring
from tasks.engine.artifact import Artifact, ArtifactKeys, open_artifact


@contextmanager
def open_inputs(
    wiring: Wiring, wanted: Mapping[str, ArtifactKeys]
) -> Iterator[dict[str, Artifact]]:
    """The complete artifacts by name, with local copies that live until the block ends.

    Raises IncompleteError for one that is not complete.
    """
    home = wiring.settings.home
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        yield {
            name: open_artifact(wiring.store, keys.stage, keys.digest, Path(scratch))
            for name, keys in wanted.items()
        }
