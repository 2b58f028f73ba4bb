"""Agreement of a judge with human preferences: can its verdicts stand in for people's?

A person preferred the chosen answer of each pair to the rejected one. The judge sees every pair in
both orders. Its preference is the mean over both, and ½ is a tie.

    accuracy     share of the judged pairs in which the judge prefers the chosen answer; a tie is ½.
                 The interval is over prompts: pairs of one prompt are drawn together.
    kappa        Cohen's κ = (p_o − p_e) / (1 − p_e) between the sides that the person and the judge
                 name (Cohen, Educational and Psychological Measurement 20, 1960). p_o is the share
                 of the judged pairs with the same side; p_e is that share by chance: the sum over
                 the sides of (the person's share of the side) · (the judge's share of the side).
    consistency  share of the judged pairs in which both orders name the same answer

A file's position of the chosen answer is arbitrary (it is always first), so its side for kappa is
drawn by a hash of the prompt id. The sides are A, B and, for the judge alone, tie; a tie never is
what the person named. Pairs without a verdict in both orders are left out of all but the coverage.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from pvar.digest import digest
from pvar.evaluation.paired import mean_interval
from pvar.judging_result import JudgingResult

Side = Literal["A", "B", "tie"]
SIDES: tuple[Side, ...] = ("A", "B", "tie")

_SAME = 1e-9
"""Preferences closer to ½ than this are ties: p and 1 − p rarely add up to exactly 1."""


class JudgeAgreement(NamedTuple):
    """How a judge agrees with people. Shares are in [0, 1]; None is unknown."""

    num_pairs: int
    num_judged: int
    """Pairs with a verdict in both orders."""
    coverage: float
    """num_judged / num_pairs."""
    accuracy: float | None
    accuracy_lower: float | None
    accuracy_upper: float | None
    kappa: float | None
    """In [−1, 1]. None also where both name one side only, which chance explains entirely."""
    position_consistency: float | None


def judge_agreement(
    result: JudgingResult, *, seed: int, confidence: float = 0.95
) -> JudgeAgreement:
    """Agreement on pairs whose first answer is the rejected one and whose second is the chosen one.

    All but the first three are None without a judged pair. `seed` is that of the interval.
    """
    judged = [
        (verdict.prompt_id, verdict.preference)
        for verdict in result.verdicts
        if verdict.preference is not None
    ]
    if not judged:
        return JudgeAgreement(len(result.pairs), 0, result.coverage, None, None, None, None, None)
    points_by_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt_id, preference in judged:
        points_by_prompt[prompt_id].append(_points(preference))
    points = list(points_by_prompt.values())
    interval = mean_interval(
        np.array([math.fsum(each) / len(each) for each in points]),
        weights=np.array([len(each) for each in points], dtype=np.float64),
        confidence=confidence,
        num_resamples=10_000,
        seed=seed,
    )
    return JudgeAgreement(
        num_pairs=len(result.pairs),
        num_judged=len(judged),
        coverage=result.coverage,
        accuracy=math.fsum(map(math.fsum, points)) / len(judged),
        accuracy_lower=interval.lower,
        accuracy_upper=interval.upper,
        kappa=cohen_kappa(
            [chosen_side(prompt_id) for prompt_id, _ in judged],
            [named_side(prompt_id, preference) for prompt_id, preference in judged],
        ),
        position_consistency=result.position_consistency,
    )


def agreement_by_source(
    result: JudgingResult, sources: Sequence[str], *, seed: int, confidence: float = 0.95
) -> dict[str, JudgeAgreement]:
    """Agreement on the pairs of each source; `sources` has one entry per pair of the result."""
    pairs = list(zip(sources, result.pairs, strict=True))
    return {
        source: judge_agreement(
            replace(result, pairs=tuple(pair for name, pair in pairs if name == source)),
            seed=seed,
            confidence=confidence,
        )
        for source in sorted(set(sources))
    }


def chosen_side(prompt_id: str) -> Side:
    """The side at which the chosen answer of a prompt is counted: A or B, by a hash."""
    number = int(digest(["side of the chosen answer", prompt_id], length=8), 16)
    return "A" if number % 2 == 0 else "B"


def named_side(prompt_id: str, preference: float) -> Side:
    """The side that a judge names by its preference for the chosen answer."""
    chosen = chosen_side(prompt_id)
    if abs(preference - 0.5) < _SAME:
        return "tie"
    if preference > 0.5:
        return chosen
    return "B" if chosen == "A" else "A"


def cohen_kappa(human: Sequence[Side], judge: Sequence[Side]) -> float | None:
    """Cohen's κ of two raters; None if both name the same side only."""
    from sklearn.metrics import cohen_kappa_score

    if len({*human, *judge}) < 2:
        return None  # p_e is 1: 0 / 0
    return float(cohen_kappa_score(human, judge, labels=list(SIDES)))


def _points(preference: float) -> float:
    """1 if the judge prefers the chosen answer, ½ for a tie, 0 otherwise."""
    return 0.5 if abs(preference - 0.5) < _SAME else float(preference > 0.5)
