"""The records of rounds: `rounds/{name}/round-000001.json` in the store, one for each round.

A record is written before its round starts, with the pinned configuration. So a round that was
interrupted, even after its promotion, goes on from the model from which it began. All references
but the champion are pinned as in the first round: a file or a model that changes meanwhile changes
no later round.
"""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from flows.execution import flatten
from flows.pinning import pin
from flows.wiring import Wiring
from pvar.artifacts import WaitingRecord
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, NotFoundError
from pvar.ports import Store
from pvar.references import CHAMPION, Reference, find_references, replace_references
from pvar.round_rules import (
    RoundResult,
    RoundsConfig,
    RoundsResult,
    reason_to_end,
    round_settings,
)
from tasks.engine.artifact import read_document

FOLDER = "rounds"
RESULTS = "rounds.json"


class RoundRecord(BaseModel):
    """A round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    began_at: datetime
    settings: PipelineConfig
    """Its configuration before it was pinned."""
    config: PipelineConfig
    """Its pinned configuration."""
    waiting: WaitingRecord | None = None
    """What it waited for when it was last run; None if it did not wait."""
    waiting_run: str | None = None
    """The run that waits."""
    result: RoundResult | None = None
    """None until it has ended."""


def read_rounds(store: Store, name: str) -> list[RoundRecord]:
    """The rounds of that name, in order. Only the last one may not have ended."""
    keys = [info.key for info in store.list(f"{FOLDER}/{name}/round-")]
    remedy = f"restore it from a backup, or delete {FOLDER}/{name}/ to begin the rounds anew"
    found = [read_document(store, key, RoundRecord, remedy=remedy) for key in keys]
    return [record for record in found if record is not None]


def save_round(store: Store, name: str, record: RoundRecord) -> None:
    """Write the record in its current state."""
    key = f"{FOLDER}/{name}/round-{record.number:06d}.json"
    store.write(key, record.model_dump_json(indent=1).encode() + b"\n")


def pin_round(
    settings: PipelineConfig, first: RoundRecord | None, wiring: Wiring
) -> PipelineConfig:
    """The pinned settings of a round that begins now. It starts from the champion, also if the same
    settings made that before. What the first round names as well is pinned as there."""
    if first is None:
        return pin(settings, wiring, goes_on=False)
    named = {each.path: each.text for each in find_references(first.settings)}
    pinned = {each.path: each.text for each in find_references(first.config)}

    def as_first(reference: Reference) -> str:
        is_other = named.get(reference.path) != reference.text
        if is_other or reference.text == CHAMPION or reference.path == "evaluate.opponent":
            return reference.text
        return pinned[reference.path]

    return pin(replace_references(settings, as_first), wiring, goes_on=False)


def refuse_other_settings(records: Sequence[RoundRecord], config: RoundsConfig) -> None:
    """Raise ConfigError if earlier rounds of this name were made with other settings.

    Bounds and `runtime` may change.
    """
    for record in records[: config.rounds]:
        given, before = (
            flatten(each.model_dump(mode="json", exclude={"runtime"}))
            for each in (round_settings(config, record.number), record.settings)
        )
        other = [key for key in {**before, **given} if before.get(key) != given.get(key)]
        if other:
            key = other[0]
            raise ConfigError(
                f"{FOLDER}/{config.series}: round {record.number} began with {key}="
                f"{before.get(key)}, which is {given.get(key)} now"
                f"{f' (and {len(other) - 1} more settings differ)' if other[1:] else ''}; give the "
                "earlier settings to go on, or another --name for rounds of their own"
            )


def rounds_result(records: Sequence[RoundRecord], config: RoundsConfig) -> RoundsResult:
    """The results of the rounds so far, with the reason why there are no more, if there is one."""
    ended = tuple(record.result for record in records if record.result is not None)
    last = records[-1] if records else None
    waiting = None
    if last is not None and last.waiting is not None:
        waiting = f"round {last.number} {last.waiting.sentence}"
    return RoundsResult(
        name=config.series,
        model_name=config.pipeline.promote.model_name,
        rounds=ended,
        end=reason_to_end(ended, config),
        waiting=waiting,
    )


def ended_rounds(config: RoundsConfig, store: Store) -> RoundsResult | None:
    """The results of rounds that have ended and were published; None if anything is left to do.

    Raises ConfigError if they were made with other settings.
    """
    records = read_rounds(store, config.series)
    refuse_other_settings(records, config)
    result = rounds_result(records, config)
    try:
        published = store.read(f"{FOLDER}/{config.series}/{RESULTS}")
    except NotFoundError:
        return None
    return result if result.end is not None and published == results_json(result) else None


def results_json(result: RoundsResult) -> bytes:
    """The results as they are published."""
    return result.model_dump_json(indent=1).encode() + b"\n"
