"""Configuration of the stages select and pair: which prompts and which responses to train on."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from pvar.annotation_queue import QueueMeasure
from pvar.combine import CombinationRule
from pvar.config_model import ConfigModel, Name
from pvar.pairs import ORIGINAL, PairRule
from pvar.selection import Budget, StrategyName
from pvar.variance import MAX_PVAR


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]!r} occurs twice; name each reward model once")
    return names


ModelNames = Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_distinct)]
"""Names of reward models (`pvar/model_roles.py`)."""


class RewardSettings(ConfigModel):
    """Which responses are used, and how rewards become preference probabilities."""

    keep_truncated: bool = False
    """Keep truncated responses. By default they are left out."""
    missing_eos_penalty: float = Field(default=0, ge=0)
    """Penalty subtracted from the reward of a truncated response, in units of reward. Requires
    keep_truncated."""
    reward_scale: float | Literal["spread"] = 1.0
    """Scale τ in σ((r_i − r_j)/τ): a number, or `spread` for the pooled within-prompt standard
    deviation."""

    @field_validator("reward_scale")
    @classmethod
    def _positive(cls, scale: float | Literal["spread"]) -> float | Literal["spread"]:
        if scale != "spread" and not 0 < scale < float("inf"):
            raise ValueError(
                f"select.reward_scale is {scale}; it must be positive and finite, or 'spread'"
            )
        return scale

    @model_validator(mode="after")
    def _penalty_fits(self) -> Self:
        if self.missing_eos_penalty and not self.keep_truncated:
            raise ValueError(
                f"select.missing_eos_penalty is {self.missing_eos_penalty}, but truncated "
                "responses are left out; set keep_truncated to true or missing_eos_penalty to 0"
            )
        return self


class SelectConfig(RewardSettings):
    """How prompts are selected for training."""

    strategy: StrategyName = "top"
    """Selection strategy (docs/selection.md). top, bottom and threshold select by PVar; random is
    the control; all keeps every prompt. disagreement and entropy need two reward models;
    implicit_gap_small, implicit_gap_large and selective need one of kind implicit, lossdiff_irm
    two."""
    budget: Budget = Field(default=Budget(fraction=0.5))
    """How many prompts to select: a fraction, a count, or a number of tokens."""
    threshold: float | None = Field(default=None, ge=0, le=MAX_PVAR)
    """Minimum PVar. Required by strategy threshold, `null` for all other strategies."""
    combination: CombinationRule = "mean_pvar"
    """How the results of several reward models are combined into one PVar."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of strategies that use random numbers."""
    models: ModelNames | None = None
    """Names of the reward models that select: PVar and the other measures are computed from their
    rewards. `null` means all of score.reward_models. Implicit reward models that the strategy
    measures the pairs with are never among them."""

    @model_validator(mode="after")
    def _strategy_fits(self) -> Self:
        if (self.strategy == "threshold") != (self.threshold is not None):
            raise ValueError(
                f"select.strategy is {self.strategy} and select.threshold is {self.threshold}; "
                "set threshold for strategy threshold, and leave it out for all other strategies"
            )
        return self

    @property
    def reward_settings(self) -> RewardSettings:
        """The reward settings, without the selection settings."""
        shared = set(RewardSettings.model_fields)
        return RewardSettings.model_validate(self.model_dump(include=shared))


class AnnotateConfig(ConfigModel):
    """Which pairs of the selected prompts people are asked about (docs/annotation.md)."""

    budget: int = Field(default=100, ge=1)
    """Number of pairs."""
    measure: QueueMeasure = "pvar_lower"
    """Measure by which prompts are asked about, largest first. disagreement and entropy need two
    reward models that select."""


class PairConfig(ConfigModel):
    """How chosen/rejected pairs are made from the responses to the selected prompts."""

    rule: PairRule = "best_worst"
    """Pair rule. `original` uses the preferences annotated in the data; all other rules compare the
    rewards of the sampled responses."""
    own_labels: bool = False
    """Use the preference annotated in the data where a selected prompt has one, as one pair whose
    margin is not compared with min_margin. `rule` makes the pairs of all other prompts."""
    pairs_per_prompt: int = Field(default=1, ge=1, le=64)
    """Maximum number of pairs per prompt."""
    min_margin: float = Field(default=0, ge=0)
    """Minimum difference in reward. Pairs with a smaller difference are dropped."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of rules that use random numbers."""
    models: ModelNames | None = None
    """Names of the reward models that label: their rewards decide what is chosen and rejected.
    `null` means all of score.reward_models except implicit ones that measure the pairs."""

    @property
    def uses_labels(self) -> bool:
        """Whether a prompt that the data labels is trained on that label."""
        return self.own_labels or self.rule == ORIGINAL
