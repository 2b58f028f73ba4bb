"""Stage promote: register the trained model, and make it the champion if the gate passes.

A version can replace only the champion that it was compared with. If another version was promoted
(or rolled back to) since, the promotion fails. With `promote.mode: approval`, a version that passes
the gate is registered, and the stage waits for a person. The decision is read from the store
(`person_decision.py`), and a run after the decision completes the stage.

All operations are idempotent. A run that was killed between registering and recording finds the
version that it registered. An approval is carried out only once, even if a rollback followed it.
The artifact is the record of the decision and its reasons.
"""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.errors import PromotionError
from pvar.gate import GateDecision
from pvar.ports import RegisteredVersion, Registry
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact, ArtifactKeys
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.stage_outcome import Waiting
from tasks.stages.evaluate import ABILITY_FIGURES
from tasks.stages.exam_looks import ExamLook
from tasks.stages.person_decision import PersonDecision, decision_on
from tasks.stages.promotion_gate import (
    FIRST_DIVERGENCE,
    FIRST_RESULTS,
    PromoteSpec,
    benchmark_figures,
    figure_of,
    gate_decision,
    has_questions,
    summary_of,
)
from tasks.stages.train import MODEL
from tasks.stages.version_origin import origin_tags

logger = logging.getLogger(__name__)

DECISION = "decision.json"
GATE_TAG = "pvar.gate"
"""Tag of a registered version: `passed` or `failed`."""
RESULTS_TAG = "pvar.results"
"""Tag of a registered version: the artifact of its comparison with the opponent."""

EXAM_TAGS = {"exam": "pvar.exam", "exam_conditions": "pvar.exam_conditions"}
"""Figure of stage evaluate → tag of a registered version: on which exam it was measured, and how.
Only results that have both in common are on one curve."""

MODE_TAG = "pvar.promotion"
"""Tag of a registered version: `promote.mode` of its comparison."""
LOOK_TAG = "pvar.look"
"""Tag of a registered version: the look at its exam, and the level of that look."""
FIRST_TAG = "pvar.first."
"""Prefix of the tags with figures of the comparison with the first model."""
FIRST_MODEL_TAG = f"{FIRST_TAG}model"
"""Tag: digest of the first model. Only comparisons with the same one are comparable."""
FIRST_FIGURES = (
    "win_rate", "win_rate_lower", "win_rate_upper",
    "ability_change", "ability_change_lower", "ability_change_upper",
)  # fmt: skip
"""Those figures."""
FIRST_DIVERGENCE_FIGURES = ("kl", "kl_lower", "kl_upper")
"""Figures of the divergence from the first model, tags with the same prefix."""

_FIGURES = ("win_rate", "win_rate_lower", "win_rate_upper", "coverage")


class PromotionRecord(BaseModel):
    """The decision on promotion, for the report and for `decision.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    promoted: bool
    decision: PersonDecision | None
    """The decision of a person; None if none was needed."""
    checks: tuple[tuple[str, float | None, float, bool], ...]
    """Name, value (None if missing), bound, passed."""
    note: str
    """The checks that were not made, and why."""
    look: ExamLook | None = None
    """The look at the exam; None if promotion is switched off, or the exam is not known."""
    model_name: str
    version: int
    previous_version: int | None
    opponent: str | None = None
    """Pinned reference of the opponent; None in the records of earlier versions of pvar."""


def _tags(job: Job[PromoteSpec], decision: GateDecision, look: ExamLook | None) -> dict[str, str]:
    """Tags of the version: artifacts, strategy, budget and results."""
    results = job.inputs["results"]
    tags = origin_tags(job.inputs["model"], results, decision) | {
        RESULTS_TAG: results.keys.root,
        "pvar.opponent": job.spec.opponent,
        "pvar.strategy": job.spec.strategy,
        "pvar.budget": job.spec.budget,
        GATE_TAG: "passed" if decision.passed else "failed",
        MODE_TAG: job.spec.gate.mode,
    }
    summary = results.manifest.summary
    figures = _FIGURES + (ABILITY_FIGURES if has_questions(summary) else ())
    tags |= {f"pvar.{name}": f"{figure_of(summary.get(name)):.4f}" for name in figures}
    tags |= {tag: str(summary[name]) for name, tag in EXAM_TAGS.items() if name in summary}
    if look is not None:
        tags[LOOK_TAG] = look.sentence
    if (first := summary_of(job, FIRST_RESULTS)) is not None:
        tags |= {
            f"{FIRST_TAG}{name}": f"{figure_of(first.get(name)):.4f}"
            for name in figures
            if name in FIRST_FIGURES
        }
    if (divergence := summary_of(job, FIRST_DIVERGENCE)) is not None:
        tags |= {
            f"{FIRST_TAG}{name}": f"{figure_of(divergence.get(name)):.4f}"
            for name in FIRST_DIVERGENCE_FIGURES
        }
    if job.spec.first is not None:
        tags[FIRST_MODEL_TAG] = job.spec.first.rpartition("#")[2]
    return tags | {
        f"pvar.{name}.{figure}": f"{value:.4f}" if isinstance(value, float) else str(value)
        for name, found in benchmark_figures(job).items()
        for figure, value in found.items()
        if value is not None
    }


def version_tags(job: Job[PromoteSpec]) -> dict[str, str]:
    """The tags with which the version of this comparison is registered."""
    return _tags(job, *gate_decision(job))


def promote(job: Job[PromoteSpec]) -> PromotionRecord:
    """Apply the gate, register the version, and move the champion alias if the gate passed.

    Raises Waiting if a person must decide.
    """
    gate, results = job.spec.gate, job.inputs["results"]
    decision, look = gate_decision(job)
    registry = job.ports.registry
    model = job.inputs["model"]
    version = registry.register(
        gate.model_name, model.folder(MODEL), model.keys.root, _tags(job, decision, look)
    )
    if decision.passed and gate.mode == "approval":
        answer = decision_on(job.ports.store, version, results.keys.root)
        if answer is None:
            raise _wait_for_approval(version)
        replaced = (
            carry_out_approval(registry, version, results.keys.root, answer)
            if answer.approved
            else None
        )
        return _record(
            decision, version, replaced, promoted=answer.approved, answer=answer, look=look
        )
    previous = registry.champion(gate.model_name)
    promoted = decision.passed and gate.mode == "automatic"
    if promoted:
        refuse_stale(version, previous)
        registry.promote(version, instead_of=previous, reason=passed_reason(job.keys))
    return _record(decision, version, _number_of(previous), promoted=promoted, look=look)


def passed_reason(keys: ArtifactKeys) -> str:
    """The reason of a promotion without a person, which names the promote artifact."""
    return f"gate passed: {keys.root}"


def carry_out_approval(
    registry: Registry, version: RegisteredVersion, results: str, decision: PersonDecision
) -> int | None:
    """Make an approved version the champion, and return the champion that it replaced.

    If that was done before, the alias does not move, so that a later rollback stays in effect.
    """
    reason = f"approved: {decision.note} ({results})"  # one approval for each results
    for promotion in registry.promotions(version):
        if promotion.reason == reason:
            return promotion.replaced
    champion = registry.champion(version.model_name)
    refuse_stale(version, champion)
    registry.promote(version, instead_of=champion, reason=reason, by=decision.by)
    return _number_of(champion)


def _wait_for_approval(version: RegisteredVersion) -> Waiting:
    named = f"{version.model_name} {version.version}"
    return Waiting(
        f"approval of {version.model_name} version {version.version}",
        f"pvar approve {named} --note TEXT (or --decline), then run the same again",
    )


def _number_of(version: RegisteredVersion | None) -> int | None:
    return None if version is None else version.version


def refuse_stale(version: RegisteredVersion, champion: RegisteredVersion | None) -> None:
    """Raise PromotionError unless the version was compared with the champion it would replace."""
    if champion is None or champion.version == version.version:
        return
    opponent = (version.opponent or "nothing").rpartition("#")[2]
    if opponent != champion.digest:
        raise PromotionError(
            f"{version.model_name} version {version.version} was compared with {opponent}, but the "
            f"champion is version {champion.version} ({champion.artifact}); run the pipeline again "
            "with evaluate.opponent=champion to compare with it; other artifacts are reused"
        )


def _record(
    decision: GateDecision,
    version: RegisteredVersion,
    previous: int | None,
    *,
    promoted: bool,
    look: ExamLook | None,
    answer: PersonDecision | None = None,
) -> PromotionRecord:
    return PromotionRecord(
        passed=decision.passed,
        promoted=promoted,
        decision=answer,
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
        look=look,
        model_name=version.model_name,
        version=version.version,
        previous_version=None if previous == version.version else previous,
        opponent=version.opponent,
    )


@contextmanager
def _open_worker(job: Job[PromoteSpec]) -> Iterator[Work]:
    def work(_: ShardSpec, folder: Path) -> RowCounts:
        record = promote(job)
        logger.info(
            "%s version %d: gate %s%s%s%s",
            record.model_name,
            record.version,
            "passed" if record.passed else "failed",
            _fate(record),
            f"; {record.look.sentence}" if record.look else "",
            f"; {record.note}" if record.note else "",
        )
        (folder / DECISION).write_text(record.model_dump_json(indent=1))
        return RowCounts(rows_in=1, rows_out=1)

    yield work


def _fate(record: PromotionRecord) -> str:
    who = f", {record.decision.sentence}" if record.decision else ""
    return f"{who}, now champion" if record.promoted else who


def read_decision(artifact: Artifact) -> PromotionRecord:
    """The record of a complete promote artifact."""
    (path,) = artifact.paths(DECISION)
    return PromotionRecord.model_validate(json.loads(path.read_text()))


def _summarise(_: Job[PromoteSpec], artifact: Artifact) -> Summary:
    record = read_decision(artifact)
    return {
        "gate_passed": record.passed,
        "gate_note": record.note or None,
        "promoted": record.promoted,
        "exam_look": record.look.number if record.look else None,
        "alpha_level": record.look.level if record.look else None,
        "decision": record.decision.sentence if record.decision else None,
        "version": record.version,
        "previous_version": record.previous_version,
    }


PROMOTE = Stage(
    name="promote",
    description="Register the model; move the champion if the gate passes.",
    version=4,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
