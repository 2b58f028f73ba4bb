"""Records of erasures: what was removed from the store, where and when, without the text.

    erasures/000001.json      written before the first removal, and again when all is removed

A record without an end is of an erasure that was killed; the next one takes it up and adds what it
finds. The ids stay, because they must not be used again.
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pvar.ports import Store
from tasks.retraining.batches import read_record, to_json

ERASURES = "erasures"


class Erasure(BaseModel):
    """One erasure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    begun_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    prompt_ids: tuple[str, ...]
    """What was looked for: all prompts withdrawn by then."""
    tables: dict[str, int]
    """Rows removed, by `stage/digest`. The artifact stays complete."""
    deleted: tuple[str, ...]
    """Incomplete artifacts that were deleted as a whole, since they held such rows."""
    pairs: dict[str, tuple[str, ...]]
    """Ids removed from artifacts with pairs or labels, by `stage/digest`: models were, or may have
    been, trained on them."""
    objects: dict[str, int]
    """Rows removed from other objects: data of batches, exams, anchors, queues."""
    num_verdicts: int
    """Cached verdicts that were deleted."""
    runs: tuple[str, ...]
    """Runs whose reports were made again."""
    kept: tuple[str, ...]
    """Objects that hold such rows and were left: the user's own files, and records that quote."""

    def joined_with(self, later: "Erasure") -> "Erasure":
        """This unfinished erasure with what a later look found in addition."""
        return self.model_copy(
            update={
                "prompt_ids": _union(self.prompt_ids, later.prompt_ids),
                "tables": {**later.tables, **self.tables},
                "deleted": _union(self.deleted, later.deleted),
                "pairs": {
                    root: _union(self.pairs.get(root, ()), later.pairs.get(root, ()))
                    for root in sorted({*self.pairs, *later.pairs})
                },
                "objects": {**later.objects, **self.objects},
                "num_verdicts": max(self.num_verdicts, later.num_verdicts),
                "runs": _union(self.runs, later.runs),
                "kept": _union(self.kept, later.kept),
            }
        )


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*first, *second}))


def read_erasures(store: Store) -> list[Erasure]:
    """All erasures, oldest first."""
    lost = "models that were trained on the erased rows are not named any more"
    keys = [info.key for info in store.list(f"{ERASURES}/")]
    return [read_record(store, key, Erasure, lost=lost) for key in keys]


def save_erasure(store: Store, erasure: Erasure) -> None:
    """Write the record. The lease on retraining is held."""
    store.write(f"{ERASURES}/{erasure.number:06d}.json", to_json(erasure))


def erased_pairs(store: Store) -> dict[str, set[str]]:
    """Ids that were removed from artifacts with pairs or labels, by `stage/digest`."""
    found: dict[str, set[str]] = {}
    for erasure in read_erasures(store):
        for root, prompt_ids in erasure.pairs.items():
            found.setdefault(root, set()).update(prompt_ids)
    return found
