"""Stage promote: register the trained model, and make it the champion if the gate says so.

A version may replace only the champion that it was compared with: where another one was promoted
(or rolled back to) since, the promotion fails. With `promote.mode: approval` the version waits for
a person, who decides later (`flows/promotions.py`).

Everything here can be done twice: a run that was killed between registering and recording finds
the version it registered. What was decided, and why, is the artifact.
"""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pvar.accounts import Accounts
from pvar.artifacts import ShardSpec, Summary
from pvar.config import PromoteConfig
from pvar.errors import PromotionError
from pvar.gate import GateDecision, GateFigures, decide_promotion
from pvar.ports import RegisteredVersion
from pvar.references import ModelReference
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.stages.evaluate import ABILITY_FIGURES
from tasks.stages.train import MODEL

logger = logging.getLogger(__name__)

DECISION = "decision.json"
GATE_TAG = "pvar.gate"
"""On the registered version: passed or failed."""

_FIGURES = ("win_rate", "win_rate_lower", "win_rate_upper", "coverage")


class PromoteSpec(BaseModel):
    """What decides the promotion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: PromoteConfig
    strategy: str
    budget: str
    opponent: ModelReference
    """The model that was beaten, or not."""


class PromotionRecord(BaseModel):
    """What was decided, for the report and for `decision.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    promoted: bool
    awaiting_approval: bool
    """The gate passed, and a person is to decide."""
    checks: tuple[tuple[str, float | None, float, bool], ...]
    """Name, value (None if missing), bound, passed."""
    note: str
    """What was not checked, and why."""
    model_name: str
    version: int
    previous_version: int | None


def _figures(job: Job[PromoteSpec]) -> GateFigures:
    summary = job.inputs["results"].manifest.summary
    return GateFigures(
        win_rate_lower=_number(summary.get("win_rate_lower")),
        coverage=_number(summary.get("coverage")),
        ended_share=_number(summary.get("challenger_ended_share")),
        ability_change_lower=(
            _number(summary.get("ability_change_lower")) if _has_questions(summary) else None
        ),
    )


def _has_questions(summary: Summary) -> bool:
    return summary.get("num_ability_questions") is not None


def _number(value: float | int | str | bool | None) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _tags(job: Job[PromoteSpec], decision: GateDecision) -> dict[str, str]:
    """Where the version came from: artifacts, strategy, budget, results."""
    results = job.inputs["results"]
    tags = {
        "pvar.results": results.keys.root,
        "pvar.opponent": job.spec.opponent,
        "pvar.strategy": job.spec.strategy,
        "pvar.budget": job.spec.budget,
        GATE_TAG: "passed" if decision.passed else "failed",
        "pvar.promotion": job.spec.gate.mode,
    }
    summary = results.manifest.summary
    figures = _FIGURES + (ABILITY_FIGURES if _has_questions(summary) else ())
    return tags | {f"pvar.{name}": f"{_number(summary.get(name)):.4f}" for name in figures}


def promote(job: Job[PromoteSpec]) -> PromotionRecord:
    """Decide, register, and move the alias if it passed."""
    gate = job.spec.gate
    decision = decide_promotion(_figures(job), gate)
    registry = job.ports.registry
    model = job.inputs["model"]
    version = registry.register(
        gate.model_name, model.folder(MODEL), model.keys.root, _tags(job, decision)
    )
    previous = registry.champion(gate.model_name)
    promoted = decision.passed and gate.mode == "automatic"
    if promoted:
        refuse_stale(version, previous)
        registry.promote(version, instead_of=previous, reason=f"gate passed: {job.keys.root}")
    awaiting = decision.passed and not promoted and gate.mode != "never"
    return _record(decision, version, previous, promoted=promoted, awaiting_approval=awaiting)


def refuse_stale(version: RegisteredVersion, champion: RegisteredVersion | None) -> None:
    """PromotionError unless the version was compared with the champion that it would replace."""
    if champion is None or champion.version == version.version:
        return
    opponent = (version.opponent or "nothing").rpartition("#")[2]
    if opponent != champion.digest:
        raise PromotionError(
            f"{version.model_name} version {version.version} was compared with {opponent}, but the "
            f"champion is version {champion.version} ({champion.artifact}); run the pipeline again "
            "with evaluate.opponent=champion to compare with it: the rest is reused"
        )


def _record(
    decision: GateDecision,
    version: RegisteredVersion,
    previous: RegisteredVersion | None,
    *,
    promoted: bool,
    awaiting_approval: bool,
) -> PromotionRecord:
    replaced = None if previous is None else previous.version
    return PromotionRecord(
        passed=decision.passed,
        promoted=promoted,
        awaiting_approval=awaiting_approval,
        checks=tuple(
            (
                check.name,
                None if math.isnan(check.value) else check.value,
                check.bound,
                check.passed,
            )
            for check in decision.checks
        ),
        note=decision.note,
        model_name=version.model_name,
        version=version.version,
        previous_version=None if replaced == version.version else replaced,
    )


@contextmanager
def _open_worker(job: Job[PromoteSpec]) -> Iterator[Work]:
    def work(_: ShardSpec, folder: Path) -> Accounts:
        record = promote(job)
        logger.info(
            "%s version %d: gate %s%s%s",
            record.model_name,
            record.version,
            "passed" if record.passed else "failed",
            _fate(record),
            f"; {record.note}" if record.note else "",
        )
        (folder / DECISION).write_text(record.model_dump_json(indent=1))
        return Accounts(rows_in=1, rows_out=1)

    yield work


def _fate(record: PromotionRecord) -> str:
    if record.promoted:
        return ", now champion"
    return ", awaiting approval" if record.awaiting_approval else ""


def read_decision(artifact: Artifact) -> PromotionRecord:
    """The decision of a complete promote artifact."""
    (path,) = artifact.paths(DECISION)
    return PromotionRecord.model_validate(json.loads(path.read_text()))


def _summarise(_: Job[PromoteSpec], artifact: Artifact) -> Summary:
    record = read_decision(artifact)
    return {
        "gate_passed": record.passed,
        "gate_note": record.note or None,
        "promoted": record.promoted,
        "awaiting_approval": record.awaiting_approval,
        "version": record.version,
        "previous_version": record.previous_version,
    }


PROMOTE = Stage(
    name="promote",
    description="Register the model; move the champion if the gate passes.",
    version=3,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
