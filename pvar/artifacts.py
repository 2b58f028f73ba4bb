"""The artifact contract: what is hashed, what is guaranteed, and when an artifact is complete.

    {stage}/{digest}/recipe.json             written first: the hashed settings, the shard plan
    {stage}/{digest}/shards/00003-{sha}/…    the files of a shard, in a folder named by content
    {stage}/{digest}/shards/00003.json       the shard's record, put once: the first writer wins
    {stage}/{digest}/manifest.json           written last: it marks the artifact as complete
    {stage}/{digest}/waiting.json            until then, if the stage waits: for what, since when
    {stage}/{digest}/machines/{digest}.json  after it: hardware and versions that made a part of it

Folders are named by content and records are put only if absent. So a worker that was presumed dead
and returns cannot replace or mix what others completed. Leases only avoid duplicate work. A record
names the plan for which it was made: if the artifact was begun anew meanwhile, from other inputs or
in other shards, nobody takes it for one of the new shards.
A manifest holds no clock, host or duration: a deterministic stage that was killed and rerun gives
the same bytes as an uninterrupted one.

Only `pvar forget --erase` replaces records and a manifest, by ones without the erased rows.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from pvar.digest import digest
from pvar.identity import identity
from pvar.number_format import NumberFormat
from pvar.references import Reference, find_references, without_locations
from pvar.row_counts import RowCounts

Summary = dict[str, float | int | str | bool | None]
"""A stage's metrics, for MLflow and the report. None is a missing metric."""


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        """The stored bytes: indented, in field order, the same on every machine."""
        return self.model_dump_json(indent=1).encode() + b"\n"


class ShardSpec(_Contract):
    """One piece of a stage's work: rows [start, stop) of its ordered input."""

    index: int = Field(ge=0)
    start: int = Field(ge=0)
    stop: int = Field(ge=0)

    @property
    def name(self) -> str:
        """The index in five digits, so that names sort like numbers."""
        return f"{self.index:05d}"


class Recipe(_Contract):
    """The description of an artifact. The first four fields are the artifact's identity."""

    stage: str
    version: int = Field(ge=1)
    identity: dict[str, JsonValue]
    """The settings that are hashed (`pvar/identity.py`)."""
    inputs: dict[str, str]
    """Input name → digest of that artifact."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """All settings, for reading."""
    references: tuple[Reference, ...] = ()
    """References of the settings to models and data, by digest."""
    shards: tuple[ShardSpec, ...] = ()
    """The shard plan of the run that began the artifact. Later runs use the same plan."""
    made_from: dict[str, str] = Field(default_factory=dict)
    """Input name → SHA-256 of that artifact's manifest, when the work began."""
    number_format: NumberFormat | None = None
    """Number format of the stage's models, as resolved by the run that began the artifact. Later
    runs use the same format. None if the stage runs no model."""

    @property
    def digest(self) -> str:
        """Digest of stage, version, identity settings and inputs. The shard plan is not hashed."""
        identity = {"stage", "version", "identity", "inputs"}
        return digest(self.model_dump(mode="json", include=identity))

    @property
    def plan_digest(self) -> str:
        """Digest of what the run that began the artifact found: shards, inputs, number format."""
        found = {"shards", "made_from", "number_format"}
        return digest(self.model_dump(mode="json", include=found))

    @classmethod
    def of(
        cls, stage: str, version: int, settings: BaseModel, inputs: Mapping[str, str]
    ) -> "Recipe":
        """The recipe of a stage with pinned settings, without a shard plan."""
        by_digest = without_locations(settings)
        return cls(
            stage=stage,
            version=version,
            identity=identity(settings),
            inputs=dict(inputs),
            config=by_digest.model_dump(mode="json"),
            references=tuple(find_references(by_digest)),
        )


class FileRecord(_Contract):
    """One file of a shard."""

    name: str
    num_bytes: int = Field(ge=0)
    sha256: str
    rows: int | None = None
    """Number of rows, for tables."""


class ShardRecord(_Contract):
    """A complete shard."""

    index: int
    folder: str
    """Folder of the files, below the artifact."""
    files: tuple[FileRecord, ...]
    row_counts: RowCounts
    plan: str | None = None
    """`Recipe.plan_digest` of the artifact for which it was made. Not part of a manifest, which
    names its inputs itself. None in records of earlier versions."""

    def is_of(self, plan: str) -> bool:
        """Whether it was made for this plan, as far as it says."""
        return self.plan in (None, plan)


class Manifest(_Contract):
    """A complete artifact."""

    stage: str
    version: int
    digest: str
    inputs: dict[str, str]
    """Input name → SHA-256 of that artifact's manifest, when this one was made."""
    shards: tuple[ShardRecord, ...]
    row_counts: RowCounts
    """As it was made; `summary`, too."""
    summary: Summary
    erased_from: str | None = None
    """If rows were erased since: SHA-256 of the manifest as it was made."""

    def to_json(self) -> bytes:
        """The stored bytes. A manifest from which nothing was erased has those that it always had:
        others name it by their hash."""
        unused: dict[str, Any] = {"shards": {"__all__": {"plan"}}}
        if self.erased_from is None:
            unused["erased_from"] = True
        return self.model_dump_json(indent=1, exclude=unused).encode() + b"\n"

    @property
    def first_sha256(self) -> str:
        """SHA-256 of the manifest as it was made, by which what was made from it names it."""
        return self.erased_from or hashlib.sha256(self.to_json()).hexdigest()


class WaitingRecord(_Contract):
    """What an artifact that is not complete waits for."""

    what: str
    """Fills "waits for …": `approval of pvar version 3`."""
    how_to_go_on: str
    """What a person does, commands included."""
    since: AwareDatetime
    """When a run first waited for it."""

    @property
    def sentence(self) -> str:
        """For logs and the terminal, after the name of what waits."""
        return (
            f"waits for {self.what} since {self.since:%Y-%m-%d %H:%M} UTC; to go on: "
            f"{self.how_to_go_on}"
        )


def plan_shards(num_rows: int, rows_per_shard: int) -> tuple[ShardSpec, ...]:
    """Split `num_rows` into shards. The last shard holds the remainder.

    Zero rows make one empty shard, so that every artifact has a table with its columns.
    """
    starts = range(0, max(num_rows, 1), rows_per_shard)
    return tuple(
        ShardSpec(index=index, start=start, stop=min(start + rows_per_shard, num_rows))
        for index, start in enumerate(starts)
    )


def total_row_counts(records: Mapping[int, ShardRecord]) -> RowCounts:
    """The sum of the shards' row counts."""
    total = RowCounts(rows_in=0, rows_out=0, rejected={})
    for _, record in sorted(records.items()):
        total = total + record.row_counts
    return total
