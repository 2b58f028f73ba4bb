"""Compare selection strategies: one configuration, several strategies, several seeds.

The control selects the same number of prompts at random. Every model is compared with the same
opponent on the same held-out prompts, so a strategy's advantage over the control is a paired
difference with the prompt as the unit (`pvar.evaluation.paired`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pvar.config import PipelineConfig
from pvar.config_model import ConfigModel
from pvar.evaluation.paired import WinRate, paired_win_rate, prompt_means
from pvar.evaluation.trainings import MethodDifference, method_difference
from pvar.selection import CONTROL, STRATEGIES, StrategyName


class CompareConfig(ConfigModel):
    """Which strategies to compare, and over which seeds."""

    pipeline: PipelineConfig = PipelineConfig()
    """The pipeline to run. Its `select.strategy` is replaced. The opponent `champion` becomes the
    starting policy, so that a promotion does not change the comparison."""
    strategies: tuple[StrategyName, ...] = Field(default=("top",), min_length=1)
    """Strategies to compare with the random control. threshold and all are not allowed, because
    they choose their own number of prompts."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Seeds of the random choices and of the training order. Responses and rewards are shared."""

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        unmatched = [name for name, strategy in STRATEGIES.items() if strategy.budget != "fills"]
        left_out = {*unmatched, CONTROL} & set(self.strategies)
        if left_out or len(set(self.strategies)) < len(self.strategies):
            raise ValueError(
                f"strategies are {', '.join(self.strategies)}; give each once, and leave out "
                f"{CONTROL} (always included) and {', '.join(unmatched)} (they choose their own "
                "number of prompts, so the control cannot match them)"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; give each once")
        for strategy in self.strategies:
            variant(self.pipeline, strategy, self.seeds[0])
        return self


class ArmResults(NamedTuple):
    """One trained model of a comparison."""

    preferences: NDArray[np.float64]
    """Preference for this model over the opponent, (num_prompts, num_answers); NaN is missing."""
    num_pairs: int
    mean_length_characters: float


class ComparisonRow(NamedTuple):
    """The result of one strategy."""

    strategy: str
    win_rate: WinRate
    over_control: MethodDifference | None
    """Win rate minus the control's; None for the control itself."""
    seed_win_rates: tuple[float, ...]
    """Win rate per seed, which shows the variation between seeds."""
    num_pairs: float
    mean_length_characters: float


def variant(pipeline: PipelineConfig, strategy: StrategyName, seed: int) -> PipelineConfig:
    """The configuration with this strategy and seed. Stages that depend on neither are shared."""
    tree = pipeline.model_dump()
    tree["select"] |= {"strategy": strategy, "seed": seed, "threshold": None}
    tree["pair"]["seed"] = tree["train"]["seed"] = seed
    if tree["evaluate"]["opponent"] == "champion":
        tree["evaluate"]["opponent"] = tree["policy"]
    return PipelineConfig.model_validate(tree)


def tabulate(
    outcomes: Mapping[str, Sequence[ArmResults]], *, confidence: float, seed: int
) -> list[ComparisonRow]:
    """One row per strategy, in the order of `outcomes` (strategy → one result per seed), which
    must include the control."""
    control = _by_training(outcomes[CONTROL])
    rows = []
    for strategy, runs in outcomes.items():
        preferences = np.hstack([run.preferences for run in runs])
        rows.append(
            ComparisonRow(
                strategy,
                paired_win_rate(preferences, confidence=confidence, seed=seed),
                None
                if strategy == CONTROL
                else method_difference(
                    _by_training(runs), control, confidence=confidence, seed=seed
                ),
                tuple(float(np.nanmean(run.preferences)) for run in runs),
                float(np.mean([run.num_pairs for run in runs])),
                float(np.mean([run.mean_length_characters for run in runs])),
            )
        )
    return rows


def _by_training(runs: Sequence[ArmResults]) -> NDArray[np.float64]:
    """Mean preference of each model on each prompt, (num_seeds, num_prompts); NaN is missing."""
    return np.array([prompt_means(run.preferences) for run in runs])
