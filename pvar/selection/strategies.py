"""The list of selection strategies."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pvar.selection.all import ALL
from pvar.selection.bottom import BOTTOM
from pvar.selection.disagreement import DISAGREEMENT
from pvar.selection.entropy import ENTROPY
from pvar.selection.implicit_gap import IMPLICIT_GAP_LARGE, IMPLICIT_GAP_SMALL
from pvar.selection.lossdiff_irm import LOSSDIFF_IRM
from pvar.selection.random import RANDOM
from pvar.selection.reward_gap import REWARD_GAP
from pvar.selection.reward_variance import REWARD_VARIANCE
from pvar.selection.rip import RIP
from pvar.selection.selective import SELECTIVE
from pvar.selection.strategy import Measure, Strategy
from pvar.selection.stratified import STRATIFIED
from pvar.selection.threshold import THRESHOLD
from pvar.selection.top import TOP

STRATEGIES: Mapping[str, Strategy] = {
    "top": TOP,
    "bottom": BOTTOM,
    "random": RANDOM,
    "all": ALL,
    "threshold": THRESHOLD,
    "stratified": STRATIFIED,
    "reward_gap": REWARD_GAP,
    "reward_variance": REWARD_VARIANCE,
    "implicit_gap_small": IMPLICIT_GAP_SMALL,
    "implicit_gap_large": IMPLICIT_GAP_LARGE,
    "disagreement": DISAGREEMENT,
    "entropy": ENTROPY,
    "rip": RIP,
    "selective": SELECTIVE,
    "lossdiff_irm": LOSSDIFF_IRM,
}

CONTROL = "random"
"""The strategy with which all others are compared."""

if TYPE_CHECKING:
    StrategyName = str
    MatchedStrategyName = str
else:  # the choices that a configuration and the command line offer
    StrategyName = Literal[tuple(STRATEGIES)]
    MatchedStrategyName = Literal[
        tuple(
            name
            for name, strategy in STRATEGIES.items()
            if strategy.budget == "fills" and name != CONTROL
        )
    ]

MEASURES: Mapping[str, Measure] = {
    strategy.measure.name: strategy.measure for strategy in STRATEGIES.values()
}
"""The measures of all strategies, by name."""
