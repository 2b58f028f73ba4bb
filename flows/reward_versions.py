"""Find in the store which versions of reward models stage adopt registered, and of which artifact.

The record of a complete artifact says it. A version whose run was killed before is registered again
by its next run.
"""

import logging
from pathlib import Path

from pydantic import ValidationError

from pvar.errors import ArtifactError, NotFoundError
from pvar.ports import Store
from tasks.engine.artifact import open_artifact
from tasks.stages.adopt import ADOPT, AdoptionRecord, read_adoption

logger = logging.getLogger(__name__)


def reward_versions(store: Store, scratch: Path) -> list[AdoptionRecord]:
    """The newest decision on each version of a reward model, by name and number.

    Records that cannot be read are named in the log.
    """
    manifests = [
        info for info in store.list(f"{ADOPT.name}/") if info.key.endswith("/manifest.json")
    ]
    found: dict[tuple[str, int], AdoptionRecord] = {}
    for info in sorted(manifests, key=lambda info: info.modified):
        _, digest, _ = info.key.split("/")
        try:
            record = read_adoption(open_artifact(store, ADOPT.name, digest, scratch))
        except (ArtifactError, NotFoundError, ValidationError) as error:
            logger.warning("%s cannot be read, and its version is not known: %s", info.key, error)
            continue
        if record.version is not None:
            found[record.model_name, record.version] = record
    return [found[key] for key in sorted(found)]
