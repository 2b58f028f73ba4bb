"""What people answered about the pairs of an annotation queue, as labelled rows.

An answer prefers one of the two, calls them equally good (a tie), or was skipped. Only the latest
answer of an annotator to a pair counts. A pair has a label if more than half of its annotators
prefer the same answer, ties counted among them; contradictions are not averaged. Every answer that
is no part of a label is counted by a reason:

    skipped        the annotator skipped the pair
    tie            both answers are equally good
    outvoted       most annotators prefer the other answer
    no_majority    the annotators disagree, so the pair has no label
    superseded     the same annotator answered again later
    not_in_queue   no pair of this queue has the id
    no_choice      no answer, or more than one, is chosen
    no_annotator   it does not say who answered
    no_time        it does not say when, or not as ISO 8601
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from pvar.annotation_queue import QueuedPair
from pvar.row_counts import RowCounts

Preferred = Literal["1", "2", "tie", "skipped"]
"""The first or the second answer as shown, both alike, or no judgement."""

PREFERRED: tuple[Preferred, ...] = ("1", "2", "tie", "skipped")


class PairAnswer(NamedTuple):
    """What one annotator answered about one pair."""

    pair_id: str
    preferred: Preferred
    annotator: str
    answered_at: datetime


class UnusableAnswer(NamedTuple):
    """An answer that cannot be read, and why."""

    pair_id: str | None
    reason: str


class Vote(NamedTuple):
    """An answer and what became of it."""

    answer: PairAnswer | UnusableAnswer
    outcome: str
    """`used`, or the reason why it is not."""


class PairLabel(NamedTuple):
    """A pair with the answer that most annotators prefer."""

    pair: QueuedPair
    chosen: str
    rejected: str
    annotator: str
    """Who preferred `chosen` first."""
    annotated_at: datetime
    """When that was."""
    num_answers: int
    """Annotators who compared the two, ties included."""
    num_agreeing: int
    """Those who prefer `chosen`."""


class PairLabels(NamedTuple):
    """The labels, in the order of the queue, and what became of every answer."""

    labels: tuple[PairLabel, ...]
    votes: tuple[Vote, ...]
    """In the order of the answers."""

    @property
    def row_counts(self) -> RowCounts:
        """Answers in, and those that are part of a label out."""
        outcomes = Counter(vote.outcome for vote in self.votes)
        num_used = outcomes.pop("used", 0)
        return RowCounts(
            rows_in=len(self.votes), rows_out=num_used, rejected=dict(sorted(outcomes.items()))
        )


def parse_answer(fields: Mapping[str, object]) -> PairAnswer | UnusableAnswer:
    """The answer of a row {"id": …, "preferred": 1, "annotator": …, "time": …}.

    `preferred` is 1, 2, "tie", or null for a skipped pair. A time without a zone is UTC.
    """
    pair_id = fields.get("id")
    preferred = fields.get("preferred")
    text = "skipped" if preferred is None and "preferred" in fields else str(preferred)
    return make_answer(
        pair_id if isinstance(pair_id, str) else None,
        next((each for each in PREFERRED if each == text), None),
        fields.get("annotator"),
        fields.get("time"),
    )


def to_answer_row(answer: PairAnswer) -> dict[str, object]:
    """The answer as a row, from which `parse_answer` gives the same answer."""
    return {
        "id": answer.pair_id,
        "preferred": answer.preferred,
        "annotator": answer.annotator,
        "time": answer.answered_at.isoformat(),
    }


def make_answer(
    pair_id: str | None, preferred: Preferred | None, annotator: object, time: object
) -> PairAnswer | UnusableAnswer:
    """The answer, or why it cannot be used."""
    if pair_id is None:
        return UnusableAnswer(None, "not_in_queue")
    if preferred is None:
        return UnusableAnswer(pair_id, "no_choice")
    who = str(annotator).strip() if isinstance(annotator, str | int) else ""
    if not who or isinstance(annotator, bool):
        return UnusableAnswer(pair_id, "no_annotator")
    when = _time(time)
    if when is None:
        return UnusableAnswer(pair_id, "no_time")
    return PairAnswer(pair_id, preferred, who, when)


def label_pairs(
    pairs: Sequence[QueuedPair], answers: Iterable[PairAnswer | UnusableAnswer]
) -> PairLabels:
    """The labels of the pairs that most of their annotators agree on."""
    given = list(answers)
    outcomes = [each.reason if isinstance(each, UnusableAnswer) else "" for each in given]
    by_pair: dict[str, dict[str, int]] = {pair.pair_id: {} for pair in pairs}
    for place, answer in enumerate(given):
        if isinstance(answer, UnusableAnswer):
            continue
        if answer.pair_id not in by_pair:
            outcomes[place] = "not_in_queue"
            continue
        latest = by_pair[answer.pair_id]
        earlier = latest.get(answer.annotator)
        if earlier is not None:
            older, newer = sorted((earlier, place), key=lambda at: (_when(given[at]), at))
            outcomes[older] = "superseded"
            latest[answer.annotator] = newer
        else:
            latest[answer.annotator] = place
    labels = []
    for pair in pairs:
        votes = {place: _answer(given[place]) for place in by_pair[pair.pair_id].values()}
        winner = _winner(votes.values())
        for place, vote in votes.items():
            outcomes[place] = _outcome(vote.preferred, winner)
        if winner is not None:
            labels.append(_label(pair, winner, votes.values()))
    return PairLabels(tuple(labels), tuple(map(Vote, given, outcomes)))


def has_answered(labels: PairLabels) -> bool:
    """Whether somebody answered a pair of the queue: ties and skipped pairs are answers, too."""
    return any(
        isinstance(vote.answer, PairAnswer) and vote.outcome != "not_in_queue"
        for vote in labels.votes
    )


def label_rows(labels: Iterable[PairLabel]) -> Iterator[dict[str, object]]:
    """Rows in the form that retraining reads (`pvar/prompt_rows.py`), with who and when."""
    for label in labels:
        yield {
            "prompt": [message._asdict() for message in label.pair.messages],
            "chosen": label.chosen,
            "rejected": label.rejected,
            "source": label.pair.source,
            "annotator": label.annotator,
            "annotated_at": label.annotated_at.isoformat(),
            "num_answers": label.num_answers,
            "num_agreeing": label.num_agreeing,
            "pair_id": label.pair.pair_id,
        }


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _answer(answer: PairAnswer | UnusableAnswer) -> PairAnswer:
    assert isinstance(answer, PairAnswer)
    return answer


def _when(answer: PairAnswer | UnusableAnswer) -> datetime:
    return _answer(answer).answered_at


def _winner(votes: Iterable[PairAnswer]) -> Preferred | None:
    counts = Counter(vote.preferred for vote in votes if vote.preferred != "skipped")
    return next(
        (each for each in ("1", "2") if 2 * counts[each] > counts.total()),
        None,
    )


def _outcome(preferred: Preferred, winner: Preferred | None) -> str:
    if preferred in ("skipped", "tie"):
        return preferred
    if winner is None:
        return "no_majority"
    return "used" if preferred == winner else "outvoted"


def _label(pair: QueuedPair, winner: Preferred, votes: Iterable[PairAnswer]) -> PairLabel:
    compared = [vote for vote in votes if vote.preferred != "skipped"]
    agreeing = [vote for vote in compared if vote.preferred == winner]
    first = min(agreeing, key=lambda vote: (vote.answered_at, vote.annotator))
    chosen, rejected = pair.answer_1, pair.answer_2
    if winner == "2":
        chosen, rejected = rejected, chosen
    return PairLabel(
        pair, chosen, rejected, first.annotator, first.answered_at, len(compared), len(agreeing)
    )
