"""Comparing selections: the same configuration with several strategies, over several seeds.

Each strategy stands beside a control that chooses as many prompts at random. All are compared with
the same opponent on the same held-out prompts, so a strategy's advantage over random is a paired
difference, with the prompt as the unit (`pvar.evaluation.paired`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pvar.config import PipelineConfig
from pvar.config_model import ConfigModel
from pvar.evaluation.paired import PairedDifference, WinRate, paired_difference, paired_win_rate
from pvar.selection import CONTROL, STRATEGIES, StrategyName


class CompareConfig(ConfigModel):
    """What is compared."""

    pipeline: PipelineConfig = PipelineConfig()
    """What is run. Its `select.strategy` is replaced; an opponent `champion` becomes the starting
    policy, so that no promotion changes the measure."""
    strategies: tuple[StrategyName, ...] = Field(default=("top",), min_length=1)
    """Strategies beside the random control. threshold and all choose their own number of prompts:
    no random choice matches them."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Each seeds random choices and the training's order. Answers and scores are shared."""

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        unmatched = [name for name, each in STRATEGIES.items() if each.budget != "fills"]
        left_out = {*unmatched, CONTROL} & set(self.strategies)
        if left_out or len(set(self.strategies)) < len(self.strategies):
            raise ValueError(
                f"strategies are {', '.join(self.strategies)}; name each once, and leave out "
                f"{CONTROL} (it is always there) and {', '.join(unmatched)} (nothing random "
                "matches them)"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; name each once")
        for strategy in self.strategies:
            variant(self.pipeline, strategy, self.seeds[0])
        return self


class ArmResults(NamedTuple):
    """One trained model of a comparison."""

    preferences: NDArray[np.float64]
    """Of this model over the opponent, (num_prompts, num_answers); NaN is missing."""
    num_pairs: int
    mean_length_characters: float


class ComparisonRow(NamedTuple):
    """One strategy's line of the result."""

    strategy: str
    win_rate: WinRate
    over_control: PairedDifference | None
    """Win rate minus the control's; None for the control itself."""
    seed_win_rates: tuple[float, ...]
    """One per seed: how much depends on luck."""
    num_pairs: float
    mean_length_characters: float


def variant(pipeline: PipelineConfig, strategy: StrategyName, seed: int) -> PipelineConfig:
    """The configuration with that selection; shares whatever does not depend on it."""
    tree = pipeline.model_dump()
    tree["select"] |= {"strategy": strategy, "seed": seed, "threshold": None}
    tree["pair"]["seed"] = tree["train"]["seed"] = seed
    if tree["evaluate"]["opponent"] == "champion":
        tree["evaluate"]["opponent"] = tree["policy"]
    return PipelineConfig.model_validate(tree)


def tabulate(
    outcomes: Mapping[str, Sequence[ArmResults]], *, confidence: float, seed: int
) -> list[ComparisonRow]:
    """Rows in the order of `outcomes`: strategy → one outcome per seed, the control among them."""
    control = np.hstack([each.preferences for each in outcomes[CONTROL]])
    rows = []
    for strategy, runs in outcomes.items():
        preferences = np.hstack([each.preferences for each in runs])
        rows.append(
            ComparisonRow(
                strategy,
                paired_win_rate(preferences, confidence=confidence, seed=seed),
                None
                if strategy == CONTROL
                else paired_difference(preferences, control, confidence=confidence, seed=seed),
                tuple(float(np.nanmean(each.preferences)) for each in runs),
                float(np.mean([each.num_pairs for each in runs])),
                float(np.mean([each.mean_length_characters for each in runs])),
            )
        )
    return rows
