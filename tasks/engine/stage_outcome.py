"""How a stage ends: made, reused, or waiting for something that no program can bring about.

A person's decision or people's labels may take days. Work that cannot go on without them raises
`Waiting`, which is neither a success nor an error: `run_stage` releases the shard, makes the shards
that need not wait, keeps what is waited for beside the artifact (`waiting.json`), and returns. No
lease is held meanwhile. Running the stage again looks again, and goes on when the answer is there.

Whether an artifact waits follows from two objects: `waiting.json` is there, the manifest is not.
So a process that is killed between writing the one and deleting the other leaves nothing wrong.
"""

import logging
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from pvar.artifacts import Manifest, WaitingRecord
from pvar.errors import IncompleteError
from pvar.ports import Store
from tasks.engine.artifact import Artifact, ArtifactKeys, read_document

logger = logging.getLogger(__name__)

StageState = Literal["made", "reused", "waiting"]


class Waiting(Exception):  # noqa: N818  a signal: nothing has gone wrong
    """Raised by the work on a shard that cannot go on; the shard is tried anew by the next run."""

    def __init__(self, what: str, how_to_go_on: str) -> None:
        """`what` fills "waits for …"; `how_to_go_on` is what a person does, commands included."""
        super().__init__(f"waits for {what}; to go on: {how_to_go_on}")
        self.what = what
        self.how_to_go_on = how_to_go_on


class StageOutcome(NamedTuple):
    """How a stage came to its artifact, or why there is none yet."""

    result: Artifact | WaitingRecord
    shards_made: int
    """Shards made by this process; 0 when everything was there."""
    seconds: float

    @property
    def waiting(self) -> WaitingRecord | None:
        """What the stage waits for; None if the artifact is complete."""
        return self.result if isinstance(self.result, WaitingRecord) else None

    @property
    def artifact(self) -> Artifact:
        """The complete artifact; IncompleteError if the stage waits."""
        if isinstance(self.result, WaitingRecord):
            raise IncompleteError(self.result.sentence)
        return self.result

    @property
    def reused(self) -> bool:
        """It was complete: nothing was computed here."""
        return self.waiting is None and self.shards_made == 0

    @property
    def state(self) -> StageState:
        """In a word."""
        if self.waiting is not None:
            return "waiting"
        return "reused" if self.reused else "made"


def record_waiting(store: Store, keys: ArtifactKeys, signal: Waiting) -> WaitingRecord:
    """Keep what an artifact waits for. Its time is that of the first run that waited for this."""
    known = read_document(store, keys.waiting, WaitingRecord)
    since = known.since if known and known.what == signal.what else datetime.now(UTC)
    record = WaitingRecord(what=signal.what, how_to_go_on=signal.how_to_go_on, since=since)
    if record != known:
        store.write(keys.waiting, record.to_json())
    logger.info("%s %s", keys.root, record.sentence)
    return record


def waiting_of(store: Store, keys: ArtifactKeys) -> WaitingRecord | None:
    """What an artifact waits for; None if it does not, or is complete."""
    record = read_document(store, keys.waiting, WaitingRecord)
    if record is None or read_document(store, keys.manifest, Manifest) is not None:
        return None
    return record
