"""Anchors: comparisons that a judge is asked about again, to see whether it is still the same.

    anchors/{digest of the judge's settings}/{epoch}/{digest of questions and wording}.json

The first complete judgments of a benchmark's answers choose the anchors, at most
`runtime.judge_anchors` of them by a hash, one per question, and ask about them a second time: that
is how much the judge agrees with itself. Before later answers to the same questions are judged, the
judge is asked about the anchors again (`drift_check.py`). The verdicts of these further askings are
stored for the artifact that needs them, so that after a kill only the calls in flight are repeated.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, JsonValue

from pvar.digest import digest
from pvar.identity import identity
from pvar.judging import EstimatingJudge, JudgeBudget
from pvar.judging_result import JudgedPair, JudgingResult, Showing, left_of, total_of
from pvar.records import Comparison, Message
from tasks.engine.artifact import read_document
from tasks.engine.stage import Job
from tasks.stages.judge_epoch import judge_digest
from tasks.stages.judge_pairs import in_order, judge_pairs
from tasks.stages.judge_spec import JudgeSpec, QuestionGroup
from tasks.stages.verdict_cache import VerdictCache


class Anchor(BaseModel):
    """A comparison as the judge saw it, and its preferences for the model's answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_id: str
    messages: tuple[Message, ...]
    first: str
    second: str
    is_swapped: bool
    """The model's answer is `first`."""
    is_creative: bool
    """It is asked about with the wording for creative questions."""
    earlier: float
    repeated: float
    """When the judge was asked again directly afterwards."""

    @property
    def question(self) -> "AnchorQuestion":
        """What the judge is asked about."""
        shown = Comparison(self.prompt_id, self.messages, self.first, self.second)
        return AnchorQuestion(shown, self.is_swapped, self.is_creative, self.earlier)


class AnchorSet(BaseModel):
    """The anchors of a judge for the questions of a benchmark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: dict[str, JsonValue]
    """The judge's settings, for reading."""
    chosen_by: str
    """The artifact (`judge/digest`) whose comparisons they are."""
    served: str | None
    """What the server called itself, with counts."""
    anchors: tuple[Anchor, ...]


class AnchorQuestion(NamedTuple):
    """A comparison as the judge saw it, with its verdict."""

    shown: Comparison
    is_swapped: bool
    is_creative: bool
    earlier: float
    """Preference for the model's answer."""

    def asked_twice(self, repeated: float) -> Anchor:
        """The anchor, now that the judge was asked again."""
        prompt_id, messages, first, second = self.shown
        return Anchor(
            prompt_id=prompt_id,
            messages=messages,
            first=first,
            second=second,
            is_swapped=self.is_swapped,
            is_creative=self.is_creative,
            earlier=self.earlier,
            repeated=repeated,
        )


class Asking(NamedTuple):
    """What a judge said when it was asked about anchors again."""

    showings: list[Showing]
    """One per anchor; preferences are for the model's answer."""
    cost: JudgingResult
    """Its pairs are those of the showings."""


def anchors_key(job: Job[JudgeSpec]) -> str:
    """The key of the anchors of this job's judge and questions."""
    spec = job.spec
    asked = [job.inputs["questions"].keys.digest, spec.orders, spec.creative_instructions]
    return f"anchors/{judge_digest(spec.judge)}/{spec.epoch:04d}/{digest(asked)}.json"


def read_anchors(job: Job[JudgeSpec]) -> AnchorSet | None:
    """The anchors of this job's judge and questions; None if nothing was judged completely yet."""
    return read_document(job.ports.store, anchors_key(job), AnchorSet)


def keep_anchors(job: Job[JudgeSpec], anchors: Sequence[Anchor], *, served: str | None) -> None:
    """Store the anchors, unless another process has stored some first."""
    kept = AnchorSet(
        judge=identity(job.spec.judge),
        chosen_by=job.keys.root,
        served=served,
        anchors=tuple(anchors),
    )
    content = kept.model_dump_json(indent=1).encode() + b"\n"
    job.ports.store.create(anchors_key(job), content)


def choose_anchors(
    groups: Sequence[QuestionGroup], pairs: Sequence[JudgedPair], *, num: int
) -> list[AnchorQuestion]:
    """At most `num` comparisons with a verdict, by a hash of the question and one per question.

    Neither the answers nor the verdicts influence the choice.
    """
    asked = {
        each.prompt_id: (each, group.is_creative) for group in groups for each in group.comparisons
    }
    candidates = []
    for pair in pairs:
        for showing in pair.showings:
            if pair.prompt_id in asked and showing.preference is not None:
                comparison, is_creative = asked[pair.prompt_id]
                shown = in_order(comparison, is_swapped=showing.is_swapped)
                candidates.append(
                    AnchorQuestion(shown, showing.is_swapped, is_creative, showing.preference)
                )
    chosen: dict[str, AnchorQuestion] = {}
    for candidate in sorted(candidates, key=_place):
        chosen.setdefault(candidate.shown.prompt_id, candidate)
    return list(chosen.values())[:num]


def _place(question: AnchorQuestion) -> str:
    return digest([question.shown.prompt_id, question.is_swapped], length=32)


def ask_again(
    job: Job[JudgeSpec],
    groups: Sequence[QuestionGroup],
    questions: Sequence[AnchorQuestion],
    budget: JudgeBudget,
) -> Asking:
    """Ask the judge about these comparisons, past the verdicts that all share."""
    showings: dict[Comparison, Showing] = {}
    results: list[JudgingResult] = []
    for group in groups:
        own = [each for each in questions if each.is_creative == group.is_creative]
        if not own:
            continue
        result = judge_pairs(
            group.judge,
            [each.shown for each in own],
            cache=anchor_cache(job),
            budget=budget,
            min_coverage=0.0,
            orders="given",
            progress=job.progress,
        )
        budget = left_of(budget, result)
        results.append(result)
        for each, pair in zip(own, result.pairs, strict=True):
            showings[each.shown] = _for_the_model(pair.showings[0], is_swapped=each.is_swapped)
    cost = total_of(results, min_coverage=0.0)
    return Asking([showings[each.shown] for each in questions], cost)


def anchor_cache(job: Job[JudgeSpec]) -> VerdictCache:
    """The verdicts of further askings for this artifact."""
    return VerdictCache(job.ports.store, job.spec.epoch, again_for=job.keys.root)


def _for_the_model(showing: Showing, *, is_swapped: bool) -> Showing:
    """The showing with the preference for the model's answer, which was shown first if swapped."""
    preference = showing.preference
    if preference is None or not is_swapped:
        return showing._replace(is_swapped=is_swapped)
    return showing._replace(is_swapped=True, preference=1 - preference)


def has_room(
    budget: JudgeBudget,
    groups: Sequence[QuestionGroup],
    anchors: Sequence[Sequence[Comparison]],
    answers: Sequence[Sequence[Comparison]],
) -> bool:
    """Whether the budget has room for anchors beside the answers; both are given by group.

    If the budget is too small for the answers alone, several runs are needed anyway. Then the first
    one asks about the anchors, so that nothing is paid for in vain.
    """
    num_calls = (sum(map(len, rows)) for rows in (anchors, answers))
    if not _fits(budget.max_calls, *num_calls):
        return False
    if budget.max_usd is None:
        return True
    usd = [_most_usd(groups, rows) for rows in (anchors, answers)]
    known = [cost for cost in usd if cost is not None]
    return len(known) < len(usd) or _fits(budget.max_usd, *known)


def _fits(limit: float | None, anchors: float, answers: float) -> bool:
    return limit is None or anchors + answers <= limit or anchors <= limit < answers


def _most_usd(
    groups: Sequence[QuestionGroup], rows: Sequence[Sequence[Comparison]]
) -> float | None:
    """The highest price of these comparisons; None if it cannot be foreseen."""
    total = 0.0
    for group, comparisons in zip(groups, rows, strict=True):
        judge = group.judge
        most = judge.estimate(comparisons).most_usd if isinstance(judge, EstimatingJudge) else None
        if most is None:
            return None
        total += most
    return total
