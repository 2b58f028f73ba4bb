"""Whether a judge still answers as it did when earlier models were judged on the same questions.

The judge is asked about its anchors (`anchors.py`) before new answers. If it answers differently
(`pvar/evaluation/judge_drift.py`), it begins a new epoch (`judge_epoch.py`) and the stage fails:
the next run judges all its models in the new epoch, where no verdict of the earlier one is used.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import Summary
from pvar.errors import JudgeError
from pvar.evaluation.judge_drift import MIN_ANCHORS, AnchorPreferences, JudgeDrift, judge_drift
from pvar.judging import JudgeBudget, MeteredJudge
from pvar.judging_result import JudgingResult, served_text, total_of
from pvar.records import Comparison
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job
from tasks.engine.tables import JudgedAnchor, write_table
from tasks.stages.anchors import (
    AnchorQuestion,
    AnchorSet,
    anchor_cache,
    ask_again,
    choose_anchors,
    has_room,
    keep_anchors,
    read_anchors,
)
from tasks.stages.judge_epoch import begin_epoch, current_epoch, read_epoch
from tasks.stages.judge_pairs import as_shown
from tasks.stages.judge_spec import JudgeSpec, QuestionGroup
from tasks.stages.judgments import cache_of

_log = logging.getLogger(__name__)

ANCHORS = "anchors.parquet"
CHECK = "anchor_check.json"

NO_ROOM = "the judge's budget has no room for the anchors"
SWITCHED_OFF = "runtime.judge_anchors is 0"
NOTHING_ASKED = "all verdicts were there already"

_FREE = total_of([], min_coverage=0.0)


class AnchorCheck(NamedTuple):
    """What the judge said about the anchors."""

    rows: tuple[JudgedAnchor, ...] = ()
    note: str | None = None
    """Why a judge on a server was not compared with its earlier self."""
    cost: JudgingResult = _FREE
    is_first: bool = False
    """There are no anchors yet, so that these judgments may choose some."""


class CheckRecord(BaseModel):
    """What the table of anchors does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    note: str | None
    num_calls: int


def check_judge(
    job: Job[JudgeSpec], groups: Sequence[QuestionGroup], budget: JudgeBudget
) -> AnchorCheck:
    """Compare the judge with its earlier self, before it judges the groups' answers.

    Raises JudgeError if it answers differently, or did so before in another run.
    """
    groups = [group for group in groups if isinstance(group.judge, MeteredJudge)]
    if not groups:
        return AnchorCheck()
    current = current_epoch(job.ports.store, job.spec.judge)
    kept = read_anchors(job) if job.runtime.judge_anchors else None
    if current <= job.spec.epoch and kept is None:
        off = None if job.runtime.judge_anchors else SWITCHED_OFF
        return AnchorCheck(note=off, is_first=off is None)
    answers = [_unknown(job, group) for group in groups]
    if current > job.spec.epoch and any(answers):
        raise _ended(job, current)
    if kept is None:
        return AnchorCheck(note=SWITCHED_OFF)
    kinds = {group.is_creative for group in groups}
    anchors = [
        anchor
        for anchor in kept.anchors[: job.runtime.judge_anchors]
        if anchor.is_creative in kinds
    ]
    questions = [anchor.question for anchor in anchors]
    to_ask = [_not_asked_yet(job, group, questions) for group in groups]
    if not any(answers):
        if any(to_ask):
            return AnchorCheck(note=NOTHING_ASKED)
    elif not has_room(budget, groups, to_ask, answers):
        return _unchecked(NO_ROOM)
    showings, cost = ask_again(job, groups, questions, budget)
    rows = [
        JudgedAnchor(
            anchor.prompt_id,
            anchor.is_swapped,
            anchor.earlier,
            anchor.repeated,
            showing.preference,
            showing.reason,
        )
        for anchor, showing in zip(anchors, showings, strict=True)
    ]
    drift = drift_of(rows)
    if drift is None:
        return _unchecked(_too_few(rows))._replace(rows=tuple(rows), cost=cost)
    _log.info("%s: the judge is compared with its earlier self: %s", job.keys.root, drift)
    if drift.is_drifted:
        raise _drifted(job, kept, drift, served_text(cost.served))
    return AnchorCheck(tuple(rows), None, cost)


def begin_anchors(
    job: Job[JudgeSpec],
    groups: Sequence[QuestionGroup],
    result: JudgingResult,
    budget: JudgeBudget,
) -> AnchorCheck:
    """Ask about some comparisons of complete judgments again, and keep them as anchors.

    That is done once for a judge and a benchmark's questions. If it fails, the judgments are good
    nevertheless, and the next model's choose the anchors.
    """
    groups = [group for group in groups if isinstance(group.judge, MeteredJudge)]
    questions = choose_anchors(groups, result.pairs, num=job.runtime.judge_anchors)
    if len(questions) < MIN_ANCHORS:
        return AnchorCheck(note=f"fewer than {MIN_ANCHORS} comparisons for anchors")
    to_ask = [_not_asked_yet(job, group, questions) for group in groups]
    if not has_room(budget, groups, to_ask, [[] for _ in groups]):
        return _unchecked(NO_ROOM)
    try:
        showings, cost = ask_again(job, groups, questions, budget)
    except JudgeError as error:  # the judgments are complete without it
        _log.warning("%s: no anchors are kept: %s", job.keys.root, error)
        return AnchorCheck(note=f"no anchors are kept: {error}")
    anchors = [
        each.asked_twice(showing.preference)
        for each, showing in zip(questions, showings, strict=True)
        if showing.preference is not None
    ]
    if len(anchors) < MIN_ANCHORS:
        note = f"only {len(anchors)} of {len(questions)} anchors have a second verdict"
        return _unchecked(note)._replace(cost=cost)
    keep_anchors(job, anchors, served=served_text(result.served))
    rows = (
        JudgedAnchor(each.prompt_id, each.is_swapped, each.earlier, each.repeated, None, None)
        for each in anchors
    )
    return AnchorCheck(tuple(rows), "the first judgments of these questions by this judge", cost)


def drift_of(rows: Sequence[JudgedAnchor]) -> JudgeDrift | None:
    """The comparison of the judge with its earlier self; None with too few verdicts now."""
    return judge_drift(
        [
            AnchorPreferences(row.earlier, row.repeated, row.now)
            for row in rows
            if row.now is not None
        ]
    )


def write_check(folder: Path, check: AnchorCheck) -> None:
    """Write the table ANCHORS, and what it does not say."""
    write_table(folder / ANCHORS, check.rows, JudgedAnchor)
    record = CheckRecord(note=check.note, num_calls=check.cost.num_calls)
    (folder / CHECK).write_text(record.model_dump_json(), encoding="utf-8")


def check_figures(artifact: Artifact) -> Summary:
    """The figures of a complete artifact's check."""
    (path,) = artifact.paths(CHECK)
    record = CheckRecord.model_validate_json(path.read_text(encoding="utf-8"))
    drift = drift_of(artifact.rows(ANCHORS, JudgedAnchor))
    return {
        "num_anchors": drift.num_anchors if drift else 0,
        "anchor_agreement": drift and drift.agreement,
        "anchor_agreement_lower": drift and drift.agreement_lower,
        "anchor_agreement_upper": drift and drift.agreement_upper,
        "anchor_p_value": drift and drift.p_value,
        "judge_drifted": drift and drift.is_drifted,
        "anchor_note": record.note,
        "num_anchor_calls": record.num_calls,
    }


def _unknown(job: Job[JudgeSpec], group: QuestionGroup) -> list[Comparison]:
    """What the judge has to be asked about a group."""
    shown = as_shown(group.comparisons, orders=job.spec.orders)
    cache = cache_of(group.judge, job.ports, epoch=job.spec.epoch)
    found = cache.find_all(group.judge.identity, shown) if cache else {}
    return [each for each in shown if each not in found]


def _not_asked_yet(
    job: Job[JudgeSpec], group: QuestionGroup, questions: Sequence[AnchorQuestion]
) -> list[Comparison]:
    own = [each.shown for each in questions if each.is_creative == group.is_creative]
    found = anchor_cache(job).find_all(group.judge.identity, own)
    return [each for each in own if each not in found]


def _unchecked(why: str) -> AnchorCheck:
    _log.warning("the judge is not compared with its earlier self: %s", why)
    return AnchorCheck(note=why)


def _too_few(rows: Sequence[JudgedAnchor]) -> str:
    num = sum(row.now is not None for row in rows)
    return f"{num} of {len(rows)} anchors have a verdict now, and {MIN_ANCHORS} are needed"


def _drifted(
    job: Job[JudgeSpec], kept: AnchorSet, drift: JudgeDrift, served: str | None
) -> JudgeError:
    """Begin the next epoch, and say so."""
    epoch = job.spec.epoch + 1
    reason = f"{drift}; the server called itself {kept.served} then and {served} now"
    begin_epoch(job.ports.store, job.spec.judge, epoch=epoch, found_by=job.keys.root, reason=reason)
    return JudgeError(
        f"{job.keys.root}: the judge answers differently than when earlier models were judged "
        f"({kept.chosen_by}): {reason}. Earlier results are not comparable. Epoch {epoch} of this "
        "judge begins: run the same again, and all models of the run are judged anew (their "
        "answers are reused)"
    )


def _ended(job: Job[JudgeSpec], current: int) -> JudgeError:
    """This epoch's judge is not to be had any more."""
    epoch = job.spec.epoch
    following = read_epoch(job.ports.store, job.spec.judge, epoch + 1)
    when = f" on {following.began_at:%Y-%m-%d} ({following.reason})" if following else ""
    return JudgeError(
        f"{job.keys.root}: epoch {epoch} of this judge ended{when}, so its judgments cannot be "
        f"continued. Run the same again to judge in epoch {current}; where judge_epoch is "
        f"{epoch} in the configuration, set it to null"
    )
