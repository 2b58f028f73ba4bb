"""Ability: short questions with known answers, scored without a judge, beside the win rate.

Alignment can raise the win rate while ability falls (arXiv 2604.02766). An answer is right if one
of the accepted strings occurs in it as whole words. Before, both are normalised: Unicode NFKC, case
folded, everything but words and numbers dropped. Numbers are exact: `12` is not in `112`, `5` is
neither in `-5` nor in `3.5` nor in `1/5`, and `1,000` is `1000`.

This sees whether knowledge is still there, not how well it is put: an answer that names every
candidate is right, one that negates the accepted words too, and a script without spaces between
words must be matched whole.
"""

import math
import re
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pvar.dedup import normalise
from pvar.evaluation.paired import paired_difference

_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = re.compile(r"(?:(?<![^\W_])-(?=\d))?[^\W_]+(?:(?<=\d)[.,:/](?=\d)[^\W_]+)*")
_PLAIN_SIGNS = str.maketrans({"\N{MINUS SIGN}": "-", "\N{FRACTION SLASH}": "/"})


class AbilityChange(NamedTuple):
    """Shares of right answers in [0, 1], over the questions that both models answered."""

    ability: float
    """The challenger's; NaN where no question was answered by both."""
    opponent_ability: float
    change: float
    """Challenger minus opponent, in [−1, 1]."""
    ci_lower: float
    ci_upper: float
    num_questions: int
    """Questions that both answered."""


def words(text: str) -> tuple[str, ...]:
    """Words and numbers of a text, normalised."""
    plain = normalise(text).translate(_PLAIN_SIGNS)
    return tuple(_WORD.findall(_THOUSANDS_COMMA.sub("", plain)))


def is_right(answer: str, accepted: Sequence[str]) -> bool:
    """Whether one of the accepted strings occurs in the answer as whole words."""
    said = f" {' '.join(words(answer))} "
    return any(f" {' '.join(words(each))} " in said for each in accepted)


def share_right(answers: Sequence[str], accepted: Sequence[str]) -> float:
    """Share of a question's sampled answers that are right; NaN where there is none."""
    return fmean(is_right(answer, accepted) for answer in answers) if answers else math.nan


def ability_change(
    challenger: ArrayLike, opponent: ArrayLike, *, confidence: float, seed: int
) -> AbilityChange:
    """Change of the share of right answers, with its interval over questions.

    Both hold one share per question, in [0, 1], shape (num_questions,), row i of the same question;
    NaN is not answered and leaves the question out, it is never a wrong answer. All figures are NaN
    where no question is left. Raises InputError as `paired_difference`.
    """
    ours, theirs = np.asarray(challenger, dtype=float), np.asarray(opponent, dtype=float)
    difference = paired_difference(ours, theirs, confidence=confidence, seed=seed)
    if difference.num_judged == 0:
        return AbilityChange(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    both = ~np.isnan(ours + theirs)
    return AbilityChange(
        ability=float(ours[both].mean()),
        opponent_ability=float(theirs[both].mean()),
        change=difference.difference,
        ci_lower=difference.ci_lower,
        ci_upper=difference.ci_upper,
        num_questions=difference.num_judged,
    )
