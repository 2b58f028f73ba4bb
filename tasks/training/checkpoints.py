"""Training checkpoints in the store: `{artifact}/checkpoints/{step}/…`, complete when marked.

A checkpoint's files are uploaded first and its marker, with their SHA-256, is written last. So a
run never resumes from an incomplete or damaged checkpoint. Only the holder of the stage's lease
writes here, or one who does not know yet that it lost the lease: so a marker names the plan of the
artifact, and a run that began it anew, from other inputs, does not resume from it.
"""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pvar.artifacts import FileRecord
from pvar.errors import DamagedError, NotFoundError
from pvar.ports import Store
from tasks.engine.artifact import sha256_of

logger = logging.getLogger(__name__)


class Marker(BaseModel):
    """Marks a checkpoint as complete and lists its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    files: tuple[FileRecord, ...]
    plan: str | None = None
    """`Recipe.plan_digest` of the artifact. None in markers of earlier versions."""


def save_checkpoint(store: Store, prefix: str, plan: str, step: int, folder: Path) -> None:
    """Upload the files of a local checkpoint and mark it as complete. Older ones are deleted."""
    marker = Marker(
        step=step,
        files=tuple(
            FileRecord(
                name=path.relative_to(folder).as_posix(),
                num_bytes=path.stat().st_size,
                sha256=sha256_of(path),
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ),
        plan=plan,
    )
    for file in marker.files:
        store.upload(folder / file.name, f"{prefix}/{step:08d}/{file.name}")
    store.write(f"{prefix}/{step:08d}.json", marker.model_dump_json().encode())
    for key in [info.key for info in store.list(f"{prefix}/")]:
        if not key.startswith(f"{prefix}/{step:08d}"):
            store.delete(key)
    logger.info("%s: checkpoint at step %d", prefix, step)


def newest_checkpoint(store: Store, prefix: str, plan: str, folder: Path) -> Path | None:
    """Download the newest complete, undamaged checkpoint of this plan below `folder`; None if there
    is none."""
    keys = [info.key for info in store.list(f"{prefix}/")]
    markers = [key for key in keys if key.endswith(".json") and "/" not in key[len(prefix) + 1 :]]
    for key in reversed(markers):
        try:
            marker = Marker.model_validate_json(store.read(key))
            if marker.plan in (None, plan):
                return _download(store, prefix, marker, folder)
        except (ValidationError, NotFoundError, DamagedError) as error:
            logger.warning("%s cannot be resumed from: %s", key, error)
    return None


def _download(store: Store, prefix: str, marker: Marker, folder: Path) -> Path:
    target = folder / f"checkpoint-{marker.step}"
    for file in marker.files:
        store.download(f"{prefix}/{marker.step:08d}/{file.name}", target / file.name)
        if sha256_of(target / file.name) != file.sha256:
            raise DamagedError(f"{file.name} differs from the saved file")
    return target


def delete_checkpoints(store: Store, prefix: str) -> None:
    """Remove all checkpoints, markers first."""
    keys = [info.key for info in store.list(f"{prefix}/")]
    for key in sorted(keys, key=lambda key: not key.endswith(".json")):
        store.delete(key)
