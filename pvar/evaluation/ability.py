"""Ability: short questions with known answers, scored without a judge, besides the win rate.

Alignment can raise the win rate while ability falls (arXiv 2604.02766). An answer is correct if it
contains one of the accepted strings as whole words. Both are normalised first: Unicode NFKC, case
folding, and removal of everything except words and numbers. Numbers must match exactly: `12` is not
in `112`, `5` is not in `-5`, `3.5` or `1/5`, and `1,000` equals `1000`.

This tests whether knowledge is retained, not how well it is expressed. An answer that lists every
candidate is correct, and so is one that negates the accepted words. In a script without spaces
between words, the whole answer must match. A worked solution is matched by no answer, so that it
measures nothing: such questions are found when they are read (`unmatchable`).
"""

import math
import re
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pvar.evaluation.paired import paired_difference
from pvar.normalised_text import normalise

_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = re.compile(r"(?:(?<![^\W_])-(?=\d))?[^\W_]+(?:(?<=\d)[.,:/](?=\d)[^\W_]+)*")
_WORKED = re.compile(r"<<[^<>]*>>|^[ \t]*####[ \t]*\S", re.MULTILINE)
"""Marks of a worked solution: GSM8K's calculations and the line with its final answer."""
_BOXED = re.compile(r"\\boxed\b|\\fbox\b")
"""MATH's mark of the final answer, which alone is a final answer."""
MAX_WORDS = 50
"""An accepted answer with more words would have to be recited."""
_MAX_WORDS_BESIDE_BOX = 10
_PLAIN_SIGNS = str.maketrans({"\N{MINUS SIGN}": "-", "\N{FRACTION SLASH}": "/"})


class AbilityChange(NamedTuple):
    """Fractions of correct answers in [0, 1], over the questions that both models answered."""

    ability: float
    """Ability of the challenger; NaN if no question was answered by both."""
    opponent_ability: float
    change: float
    """Challenger minus opponent, in [−1, 1]."""
    ci_lower: float
    ci_upper: float
    num_questions: int
    """Questions that both models answered."""


def words(text: str) -> tuple[str, ...]:
    """Words and numbers of a text, normalised."""
    plain = normalise(text).translate(_PLAIN_SIGNS)
    return tuple(_WORD.findall(_THOUSANDS_COMMA.sub("", plain)))


def is_right(answer: str, accepted: Sequence[str]) -> bool:
    """Whether one of the accepted strings occurs in the answer as whole words."""
    said = f" {' '.join(words(answer))} "
    return any(f" {' '.join(words(text))} " in said for text in accepted)


def unmatchable(accepted: Sequence[str]) -> str | None:
    """The rule by which no model can give any of these accepted answers; None if one may be given.

    A worked solution, with steps before its final answer, is never given word by word.
    """
    if not all(map(_is_worked, accepted)):
        short = any(len(words(text)) <= MAX_WORDS for text in accepted if not _is_worked(text))
        return None if short else "accepted_answer_too_long"
    return "accepted_answer_is_worked_solution"


def _is_worked(text: str) -> bool:
    if _WORKED.search(text):
        return True
    return bool(_BOXED.search(text)) and len(words(text)) > _MAX_WORDS_BESIDE_BOX


def fits(accepted: Sequence[str], max_tokens: int) -> bool:
    """Whether one of the accepted strings has no more words than an answer may have tokens."""
    return any(len(words(text)) <= max_tokens for text in accepted)


def share_right(answers: Sequence[str], accepted: Sequence[str]) -> float:
    """Fraction of a question's sampled answers that are correct; NaN without answers."""
    return fmean(is_right(answer, accepted) for answer in answers) if answers else math.nan


def ability_change(
    challenger: ArrayLike, opponent: ArrayLike, *, confidence: float, seed: int
) -> AbilityChange:
    """Change of the fraction of correct answers, with its interval over questions.

    Both arguments have one fraction per question, in [0, 1], of shape (num_questions,), in the same
    order. NaN means not answered: the question is left out, not counted as wrong. All results are
    NaN if no question is left. Raises InputError as `paired_difference`.
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
