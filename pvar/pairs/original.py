"""The data set's own chosen and rejected answers, e.g. UltraFeedback's as in arXiv 2510.13022.

UltraFeedback's `overall_score` is known to be wrong in places: its parser read "1" as 10, so some
of the worst answers are "chosen" (argilla-io/notus #7). The ratings of the single
aspects (helpfulness, honesty, …; 1 to 5) are right. Its authors kept a 10 where their mean is above
4; a chosen answer with a 10 and a lower mean, or without ratings to check it by, is excluded here.
"""

from statistics import fmean
from typing import NamedTuple

from pvar.records import Pair, Prompt

SUSPECT_OVERALL_SCORE = 10.0
MIN_ASPECT_MEAN = 4.0


class Annotation(NamedTuple):
    """The scores behind a data set's own preference."""

    prompt_id: str
    chosen_score: float
    rejected_score: float
    chosen_aspects: tuple[float, ...] = ()
    """Ratings of single aspects, 1 to 5; empty if the data set has none."""


def original_pair(prompt: Prompt, annotation: Annotation | None, min_margin: float) -> Pair | str:
    """The prompt's annotated pair, or the reason why it is rejected."""
    if prompt.chosen is None or prompt.rejected is None:
        return "no_annotation"
    if not prompt.chosen.strip() or not prompt.rejected.strip():
        return "empty"
    if prompt.chosen.strip() == prompt.rejected.strip():
        return "tie"
    if annotation is not None:
        reason = _why_excluded(annotation, min_margin)
        if reason is not None:
            return reason
    elif min_margin > 0:
        return "missing_reward"
    return Pair(prompt.prompt_id, prompt.messages, prompt.chosen, prompt.rejected, None, None)


def _why_excluded(annotation: Annotation, min_margin: float) -> str | None:
    if annotation.chosen_score >= SUSPECT_OVERALL_SCORE:
        if not annotation.chosen_aspects:
            return "overall_score_unchecked"
        if fmean(annotation.chosen_aspects) <= MIN_ASPECT_MEAN:
            return "overall_score_bug"
    margin = annotation.chosen_score - annotation.rejected_score
    if margin == 0:
        return "tie"
    return "margin" if margin < min_margin else None
