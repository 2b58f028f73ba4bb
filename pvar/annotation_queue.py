"""Annotation queue: the pairs of responses that are most worth a person's label.

Prompts are ordered by a measure of the rewards of their responses, and one pair of responses is
shown of each:

    measure        order of the prompts                                pair
    pvar_lower     lower bound of PVar, largest first                  best against worst
    pvar           PVar, largest first                                 best against worst
    disagreement   variance of the preference over reward models       where it is largest
    entropy        entropy of the models' mean preference              where it is largest
    random         by a hash of the seed and the prompt's id           two by the same hash

PVar finds prompts whose pair moves the policy most, so that a wrong label is dearest there; its
lower bound puts those later that are high by the luck of few responses. It is the one-sided 95 %
bound of log PVar (delta method),

    PVar · exp(−1.645 · stderr / PVar),

which is never below that of a prompt with PVar 0, as PVar − 1.645 · stderr can be. `disagreement`
(query by committee) and `entropy` (uncertainty sampling of an ensemble) find pairs of which the
reward models know least (`pvar/combine.py`). `random` is the control.

Which of the two answers is shown first is decided by a hash of both texts, so that the position
says nothing of the rewards, and a pair keeps its id and its order in every queue.

Axes: M reward models, P prompts, N responses. NaN is missing.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from pvar.combine import combine_preference_variance_stderr
from pvar.digest import digest
from pvar.errors import ConfigError, InputError
from pvar.records import Message, Prompt
from pvar.row_counts import RowCounts
from pvar.selection import MEASURES, RewardMatrix
from pvar.selection.seeded_order import random_keys
from pvar.selection.strategy import PVAR, FloatArray

QueueMeasure = Literal["pvar_lower", "pvar", "disagreement", "entropy", "random"]

ONE_SIDED_95 = 1.645
"""Standard errors between an estimate and its one-sided 95 % bound."""

MIN_FOR_BOUND = 3
"""Responses without which PVar has no standard error, and so no `pvar_lower`."""

ROUNDING = 1e-9
"""A share of the budget that is this near to a whole number of pairs is that number."""


class AnsweredPrompt(NamedTuple):
    """A prompt with the responses of which a person could compare two."""

    prompt: Prompt
    answers: tuple[str, ...]
    """(N,) texts in the order of the rewards; all differ."""


class QueuedPair(NamedTuple):
    """Two answers that a person is asked to compare."""

    pair_id: str
    """Hash of the prompt's id and both texts."""
    prompt_id: str
    messages: tuple[Message, ...]
    source: str
    answer_1: str
    answer_2: str
    measure: QueueMeasure
    value: float
    """The prompt's value of the measure."""
    reward_1: float
    """Reward of `answer_1`: the mean over the models of reward / scale."""
    reward_2: float


class Quota(NamedTuple):
    """Bounds of a source's share of the budget."""

    min_share: float = 0.0
    max_share: float = 1.0


class AnnotationQueue(NamedTuple):
    """The pairs to label, best first, and why other prompts are left out."""

    pairs: tuple[QueuedPair, ...]
    row_counts: RowCounts
    """In prompts."""


def make_queue(
    prompts: Sequence[AnsweredPrompt],
    rewards: RewardMatrix,
    *,
    measure: QueueMeasure,
    budget: int,
    quotas: Mapping[str, Quota] | None = None,
    seed: int = 0,
) -> AnnotationQueue:
    """The `budget` pairs most worth a label, one of each prompt.

    prompts: (P,) in the order of the rewards' axis. quotas: by source. Prompts without the measure
    are left out: fewer than two responses with a reward, or fewer than three for `pvar_lower`.
    Raises ConfigError for quotas that no queue can keep or a measure of several models for one,
    InputError for a source that no prompt has.
    """
    quotas = quotas or {}
    sources = [each.prompt.source for each in prompts]
    _check_quotas(quotas, sources)
    ids = np.array([each.prompt.prompt_id for each in prompts], dtype=str)
    values = _measure(ids, rewards, measure, seed)
    measured = np.flatnonzero(np.isfinite(values))
    order = measured[np.lexsort((ids[measured], -values[measured]))].tolist()
    chosen = fill_quotas(order, sources, budget, quotas)
    keys = random_keys(ids, seed)
    pairs = [
        _queued(prompts[row], rewards, row, measure, float(values[row]), float(keys[row]))
        for row in chosen
    ]
    left_out = "over_budget" if len(chosen) == budget else "over_quota"
    rejected = {"no_measure": len(prompts) - len(order), left_out: len(order) - len(chosen)}
    return AnnotationQueue(
        tuple(pairs),
        RowCounts(
            rows_in=len(prompts),
            rows_out=len(pairs),
            rejected={reason: count for reason, count in rejected.items() if count},
        ),
    )


def to_pair_row(pair: QueuedPair) -> dict[str, object]:
    """The pair as a row of a file, from which `parse_pair` gives the same pair."""
    return {**pair._asdict(), "messages": [message._asdict() for message in pair.messages]}


def parse_pair(fields: Mapping[str, object]) -> QueuedPair:
    """The pair of a row. Raises InputError for a row that is none."""
    try:
        return TypeAdapter(QueuedPair).validate_python(dict(fields))
    except ValidationError as error:
        raise InputError("not a pair of an annotation queue") from error


def _measure(
    prompt_ids: NDArray[np.str_], rewards: RewardMatrix, measure: QueueMeasure, seed: int
) -> FloatArray:
    """(P,) the measure by which prompts are queued, largest first; NaN is missing.

    Raises ConfigError for a measure that compares reward models if there is one.
    """
    compute, min_models = MEASURES[PVAR.name].compute, 1
    if measure in MEASURES:
        compute, min_models = MEASURES[measure].compute, MEASURES[measure].min_models
    if len(rewards.scales) < min_models:
        raise ConfigError(
            f"the measure {measure} compares reward models, but there is 1; give the rewards of "
            "two, or use pvar_lower"
        )
    assert compute is not None  # of all measures in QUEUE_MEASURES
    values = compute(rewards)
    match measure:
        case "pvar_lower":
            stderr = combine_preference_variance_stderr(
                rewards.rewards, scales=rewards.scales, rule=rewards.combination
            )
            return values * np.exp(-ONE_SIDED_95 * stderr / np.where(values > 0, values, 1.0))
        case "random":
            return np.where(np.isnan(values), np.nan, random_keys(prompt_ids, seed))
        case _:
            return values


def fill_quotas(
    order: Sequence[int], sources: Sequence[str], budget: int, quotas: Mapping[str, Quota]
) -> list[int]:
    """The first `budget` rows of the order that keep the quotas, in this order.

    A source with a minimum gets its best rows first, as many as it has; what is left of the budget
    is filled in the order, without exceeding a maximum. A minimum is rounded up to whole rows,
    unless the budget has no place for all that are: then those with the largest remainders are.
    """
    most = {name: math.floor(each.max_share * budget + ROUNDING) for name, each in quotas.items()}
    by_source = {name: [row for row in order if sources[row] == name] for name in quotas}
    rooms = {name: min(most[name], len(rows)) for name, rows in by_source.items()}
    taken: set[int] = set()
    for name, least in _minimums(quotas, budget, rooms).items():
        taken.update(by_source[name][:least])
    num_taken = Counter(sources[row] for row in taken)
    for row in order:
        source = sources[row]
        if (
            len(taken) < budget
            and row not in taken
            and num_taken[source] < most.get(source, budget)
        ):
            taken.add(row)
            num_taken[source] += 1
    return [row for row in order if row in taken]


def _minimums(quotas: Mapping[str, Quota], budget: int, rooms: Mapping[str, int]) -> dict[str, int]:
    """Rows that each source gets first, together at most the budget (largest remainder method).

    rooms: by source, the rows that it may get at most.
    """
    shares = {name: quota.min_share * budget for name, quota in quotas.items()}
    least = {name: min(math.floor(share + ROUNDING), rooms[name]) for name, share in shares.items()}
    for name in sorted(shares, key=lambda name: (least[name] - shares[name], name)):
        up = min(math.ceil(shares[name] - ROUNDING), rooms[name])
        if up > least[name] and sum(least.values()) < budget:
            least[name] = up
    return least


def _check_quotas(quotas: Mapping[str, Quota], sources: Sequence[str]) -> None:
    for name, quota in quotas.items():
        if name not in sources:
            raise InputError(
                f"a quota names the source {name!r}, but the sources of these prompts are "
                f"{', '.join(sorted(set(sources)))}; correct the name"
            )
        if not 0 <= quota.min_share <= quota.max_share <= 1:
            raise ConfigError(
                f"the quota of {name} is {quota.min_share:g} to {quota.max_share:g} of the budget; "
                "give shares between 0 and 1, the minimum not above the maximum"
            )
    total = sum(quota.min_share for quota in quotas.values())
    if total > 1 + ROUNDING:
        raise ConfigError(f"the minimum shares add up to {total:g}; lower them to 1 or less")


def _queued(
    answered: AnsweredPrompt,
    rewards: RewardMatrix,
    row: int,
    measure: QueueMeasure,
    value: float,
    key: float,
) -> QueuedPair:
    scaled = np.asarray(rewards.scaled[row], np.float64)
    of_models = np.asarray(rewards.rewards[:, row], np.float64)
    of_models = of_models / np.array(rewards.scales)[:, None]
    picked = choose_pair(of_models, measure, key)
    by_text = {answered.answers[place]: float(scaled[place]) for place in picked}
    pair_id = digest([answered.prompt.prompt_id, *sorted(by_text)])
    is_reversed = int(digest(["order", pair_id], length=1), 16) % 2 == 1
    answer_1, answer_2 = sorted(by_text, reverse=is_reversed)
    return QueuedPair(
        pair_id,
        answered.prompt.prompt_id,
        answered.prompt.messages,
        answered.prompt.source,
        answer_1,
        answer_2,
        measure,
        value,
        by_text[answer_1],
        by_text[answer_2],
    )


def choose_pair(rewards: FloatArray, measure: QueueMeasure, key: float) -> tuple[int, int]:
    """The two responses of a prompt that are shown.

    rewards: (M, N) divided by their scales, at least two of them known to all models. key: in
    [0, 1), by which `random` chooses. Of equal pairs the first one is taken.
    """
    places = np.flatnonzero(np.isfinite(rewards).all(axis=0))
    left, right = places[np.array(np.triu_indices(len(places), 1))]
    half_gaps = rewards[:, left] / 2 - rewards[:, right] / 2  # halves cannot overflow
    preferences = (1 + np.tanh(half_gaps)) / 2
    match measure:
        case "pvar_lower" | "pvar":
            with np.errstate(over="ignore"):
                worth = np.abs(half_gaps.mean(axis=0))
        case "disagreement":
            worth = preferences.var(axis=0)
        case "entropy":
            worth = -np.abs(preferences.mean(axis=0) - 0.5)
        case "random":
            worth = np.arange(len(left)) == math.floor(key * 2**20) % len(left)
    best = int(np.argmax(worth))
    return int(left[best]), int(right[best])
