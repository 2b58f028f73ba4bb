"""Drift of a judge: does it still answer as it did when earlier models were judged?

Anchors are comparisons that the judge has judged before. Each was judged twice at that time
(`earlier`, and `repeated` directly afterwards) and is judged again now. A judge that has not
changed gives three draws from one distribution per anchor, so that two exact tests need no
assumption about how deterministic it is:

    direction   Does it favour the models more, or less, than before? McNemar's exact test between
                `earlier` and `now`: of the anchors whose side changed, how many moved towards the
                model's answer; binomial with ½, two-sided.
    agreement   Does it differ from itself more than it did when nothing had changed? Exact sign
                test: of the anchors where only one of `repeated` and `now` agrees with `earlier`,
                in how many it is `repeated`; binomial with ½, one-sided.

A side is the model's answer, the baseline's, or a tie. The judge has drifted if either test is
below `LEVEL`, so a judge that has not changed is called drifted in at most 2 % of the checks. It is
fewer in fact, because the tests are discrete; a judge that always agrees with itself cannot fail.

What 32 anchors find, if the judge agreed with itself on all of them at first: a change of 7 or more
(7 of 7 in one direction of the sign test: 2⁻⁷ = 0.8 %). That is, a judge that now decides a share s
of comparisons otherwise is found with probability 4 % (s = 0.1), 46 % (s = 0.2), 89 % (s = 0.3),
99 % (s = 0.4). A change of a few percent of the verdicts is not found: that takes hundreds of
anchors. Changes of preferences that keep their side are measured (mean absolute difference) and not
tested.
"""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

from pvar.evaluation.paired import Interval

LEVEL = 0.01
"""Level of each of the two tests."""

MIN_ANCHORS = 7
"""With fewer, neither test can be below `LEVEL`."""

_TAIL = 0.025
"""Each side of a 95 % interval leaves out this probability."""

_SAME = 1e-9
"""Preferences closer to ½ than this are ties: p and 1 − p rarely add up to exactly 1."""


class AnchorPreferences(NamedTuple):
    """One anchor's preferences for the model's answer, in [0, 1]."""

    earlier: float
    """When the earlier model was judged."""
    repeated: float
    """When the judge was asked again directly afterwards."""
    now: float


class JudgeDrift(NamedTuple):
    """How a judge agrees with its earlier self. Shares are in [0, 1]."""

    num_anchors: int
    agreement: float
    """Share of the anchors on which it names the same side now as earlier."""
    agreement_lower: float
    """Clopper and Pearson's 95 % interval."""
    agreement_upper: float
    first_agreement: float
    """The same share directly after the earlier judging: what to expect of a judge as it was."""
    mean_absolute_difference: float
    """Between the preferences now and earlier."""
    direction_p_value: float
    agreement_p_value: float

    @property
    def p_value(self) -> float:
        """The lower of the two, which is compared with `LEVEL`."""
        return min(self.direction_p_value, self.agreement_p_value)

    @property
    def is_drifted(self) -> bool:
        """Whether the judge answers differently than before."""
        return self.p_value < LEVEL

    def __str__(self) -> str:
        return (
            f"{self.num_anchors * self.agreement:.0f} of {self.num_anchors} verdicts name the same "
            f"side as before ({self.agreement:.0%}, 95 % interval {self.agreement_lower:.0%} to "
            f"{self.agreement_upper:.0%}; {self.first_agreement:.0%} when nothing had changed; "
            f"p = {self.p_value:.2g})"
        )


def judge_drift(anchors: Sequence[AnchorPreferences]) -> JudgeDrift | None:
    """Compare a judge with its earlier self; None with fewer than `MIN_ANCHORS`."""
    num_anchors = len(anchors)
    if num_anchors < MIN_ANCHORS:
        return None
    same = [_side(each.now) == _side(each.earlier) for each in anchors]
    same_at_first = [_side(each.repeated) == _side(each.earlier) for each in anchors]
    towards = sum(_side(each.now) > _side(each.earlier) for each in anchors)
    lost = sum(first and not now for first, now in zip(same_at_first, same, strict=True))
    gained = sum(now and not first for first, now in zip(same_at_first, same, strict=True))
    num_moved = num_anchors - sum(same)
    bounds = _share_interval(sum(same), num_anchors)
    return JudgeDrift(
        num_anchors,
        sum(same) / num_anchors,
        bounds.lower,
        bounds.upper,
        sum(same_at_first) / num_anchors,
        sum(abs(each.now - each.earlier) for each in anchors) / num_anchors,
        min(1.0, 2 * _at_least(max(towards, num_moved - towards), num_moved)),
        _at_least(lost, lost + gained),
    )


def _at_least(num: int, of: int) -> float:
    """Probability of at least `num` heads in `of` tosses of a fair coin."""
    return float(sum(comb(of, heads) for heads in range(num, of + 1)) / 2**of)


def _share_interval(num: int, of: int) -> Interval:
    """Clopper and Pearson's 95 % interval of a share."""
    from scipy.special import betaincinv

    lower = float(betaincinv(num, of - num + 1, _TAIL)) if num else 0.0
    upper = float(betaincinv(num + 1, of - num, 1 - _TAIL)) if num < of else 1.0
    return Interval(lower, upper)


def _side(preference: float) -> int:
    """1 for the model, −1 for the baseline, 0 for a tie."""
    if abs(preference - 0.5) < _SAME:
        return 0
    return 1 if preference > 0.5 else -1
