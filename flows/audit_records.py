"""The records of audits: looks at the reserve exam, kept in the store.

    audits/audit-20260310-120000-1a2b.json     written before the work starts, and again at its end

An audit without results is not finished, and is no look. Like the records of runs, they name
artifacts, so that `pvar gc` keeps these.
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from pvar.artifacts import Summary
from pvar.errors import DamagedError
from pvar.ports import Store

AUDITS = "audits/"


class AuditNode(BaseModel):
    """An artifact of an audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    artifact: str
    """`stage/digest`."""


class AuditResults(BaseModel):
    """The champion compared with the first model. Rates are in [0, 1]; None is missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exam: str
    """Digest of the reserve exam's prompts."""
    exam_conditions: str
    """Digest of how it was answered and judged."""
    look: int
    """Of the looks of this model at this exam, from 1."""
    win_rate: float | None
    """Against the first model."""
    win_rate_lower: float | None
    win_rate_upper: float | None
    num_judged: int
    coverage: float
    """Share of the prompts that have a verdict."""
    ability: float | None
    """Share of the ability questions that it answered correctly."""
    ability_change: float | None
    """Since the first model, in [−1, 1]."""
    ability_change_lower: float | None
    ability_change_upper: float | None

    @property
    def is_worse(self) -> bool:
        """Whether the interval of the win rate is below one half: worse than the first model."""
        return self.win_rate_upper is not None and self.win_rate_upper < 0.5

    @property
    def sentence(self) -> str:
        """The results for people."""
        return f"{_rate(self)} against the first model{_ability(self)}; look {self.look}"


class AuditRecord(BaseModel):
    """An audit of the champion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    started_at: AwareDatetime
    by: str
    model_name: str
    version: int
    """The champion's."""
    move: int
    """Number of the move that made it the champion (`pvar history`)."""
    first_model: str
    """Digest of the first model."""
    nodes: tuple[AuditNode, ...]
    results: AuditResults | None = None
    """None while the audit runs, and if it failed."""


def audit_results(summary: Summary, look: int) -> AuditResults:
    """The results from the figures of stage evaluate."""
    names = AuditResults.model_fields.keys() - {"look"}
    return AuditResults.model_validate({"look": look, **{name: summary[name] for name in names}})


def read_audits(store: Store, model_name: str) -> list[AuditRecord]:
    """The finished audits of a model, oldest first. Raises DamagedError for an invalid record."""
    records = [_read(store, info.key) for info in store.list(AUDITS)]
    found = [each for each in records if each.model_name == model_name and each.results is not None]
    return sorted(found, key=lambda each: each.started_at)


def save_audit(store: Store, record: AuditRecord) -> None:
    """Write the record in its current state."""
    store.write(f"{AUDITS}{record.run}.json", record.model_dump_json(indent=1).encode() + b"\n")


def _read(store: Store, key: str) -> AuditRecord:
    try:
        return AuditRecord.model_validate_json(store.read(key))
    except ValidationError as error:
        raise DamagedError(
            f"{store.uri}/{key} is not a valid record of an audit: {error.errors()[0]['msg']}; "
            "restore it from a backup, or delete it: the audit then counts as not done"
        ) from error


def _rate(results: AuditResults) -> str:
    if results.win_rate is None:
        return "no verdict"
    lower, upper = results.win_rate_lower, results.win_rate_upper
    ends = "" if lower is None or upper is None else f" ({lower:.1%}–{upper:.1%})"
    return f"wins {results.win_rate:.1%}{ends} of {results.num_judged} prompts"


def _ability(results: AuditResults) -> str:
    if results.ability is None:
        return ""
    change, lower, upper = (
        None if each is None else f"{100 * each:+.1f}"
        for each in (
            results.ability_change, results.ability_change_lower, results.ability_change_upper
        )
    )  # fmt: skip
    since = "" if change is None else f", {change} points since it ({lower} to {upper})"
    return f"; ability {results.ability:.1%}{since}"
