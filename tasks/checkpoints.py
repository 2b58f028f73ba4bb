"""Training checkpoints in the store: `{artifact}/checkpoints/{step}/…`, complete when marked.

A checkpoint's files are uploaded first and its marker is written last, so one that was interrupted
is never resumed from. Only the holder of the stage's lease writes here.
"""

import json
import logging
from pathlib import Path

from pvar.ports import Store

logger = logging.getLogger(__name__)


def save_checkpoint(store: Store, prefix: str, step: int, folder: Path) -> None:
    """Upload the files of a local checkpoint and mark it complete; older ones are deleted."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    for name in names:
        store.upload(folder / name, f"{prefix}/{step:08d}/{name}")
    store.write(f"{prefix}/{step:08d}.json", json.dumps({"step": step, "files": names}).encode())
    for key in [info.key for info in store.list(f"{prefix}/")]:
        if not key.startswith(f"{prefix}/{step:08d}"):
            store.delete(key)
    logger.info("%s: checkpoint at step %d", prefix, step)


def newest_checkpoint(store: Store, prefix: str, folder: Path) -> Path | None:
    """Download the newest complete checkpoint below `folder`; None if there is none."""
    markers = [info.key for info in store.list(f"{prefix}/") if info.key.endswith(".json")]
    markers = [key for key in markers if key.count("/") == prefix.count("/") + 1]
    if not markers:
        return None
    marker = json.loads(store.read(max(markers)))
    target = folder / f"checkpoint-{marker['step']}"
    for name in marker["files"]:
        store.download(f"{prefix}/{marker['step']:08d}/{name}", target / name)
    return target


def delete_checkpoints(store: Store, prefix: str) -> None:
    """Remove all checkpoints, markers first."""
    keys = [info.key for info in store.list(f"{prefix}/")]
    for key in sorted(keys, key=lambda key: not key.endswith(".json")):
        store.delete(key)
