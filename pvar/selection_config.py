"""The part of the configuration tree that makes training pairs: which prompts, which answers."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pvar.combine import CombinationRule
from pvar.config_model import ConfigModel
from pvar.pairs import PairRule
from pvar.selection import Budget, StrategyName
from pvar.variance import MAX_PVAR


class RewardSettings(ConfigModel):
    """Which responses count, and how their rewards become probabilities."""

    keep_truncated: bool = False
    """Use answers that ran into the token limit instead of leaving them out."""
    missing_eos_penalty: float = Field(default=0, ge=0)
    """Taken off the reward of an answer that ran into the token limit (needs keep_truncated), so
    that answers that end are preferred. In rewards."""
    reward_scale: float | Literal["spread"] = 1.0
    """τ in σ((r_i − r_j)/τ): a number, or `spread` for the pooled within-prompt deviation."""

    @field_validator("reward_scale")
    @classmethod
    def _positive(cls, scale: float | Literal["spread"]) -> float | Literal["spread"]:
        if scale != "spread" and not 0 < scale < float("inf"):
            raise ValueError(
                f"reward_scale is {scale}; it must be positive and finite, or 'spread'"
            )
        return scale

    @model_validator(mode="after")
    def _penalty_fits(self) -> Self:
        if self.missing_eos_penalty and not self.keep_truncated:
            raise ValueError(
                f"missing_eos_penalty is {self.missing_eos_penalty}, but truncated answers are "
                "left out; set keep_truncated to true, or the penalty to 0"
            )
        return self


class SelectConfig(RewardSettings):
    """Which prompts to train on."""

    strategy: StrategyName = "top"
    """top, bottom and threshold are by PVar; random is the control; all keeps every prompt."""
    budget: Budget = Field(default=Budget(fraction=0.5))
    """How much to keep: a fraction or a count of the prompts, or tokens."""
    threshold: float | None = Field(default=None, ge=0, le=MAX_PVAR)
    """Least PVar, for strategy threshold."""
    combination: CombinationRule = "mean_pvar"
    """How several reward models make one PVar."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of strategies that draw."""

    @model_validator(mode="after")
    def _strategy_fits(self) -> Self:
        if (self.strategy == "threshold") != (self.threshold is not None):
            raise ValueError(
                f"strategy is {self.strategy} and threshold is {self.threshold}; strategy "
                "threshold needs a threshold, and no other takes one"
            )
        return self

    @property
    def reward_settings(self) -> RewardSettings:
        """What the rewards are made by, without what is selected."""
        shared = set(RewardSettings.model_fields)
        return RewardSettings.model_validate(self.model_dump(include=shared))


class PairConfig(ConfigModel):
    """Which answers of the selected prompts become chosen and rejected."""

    rule: PairRule = "best_worst"
    """By reward, among the sampled answers; or `original`, the data's own preference."""
    pairs_per_prompt: int = Field(default=1, ge=1, le=64)
    """Pairs made from one prompt, at most."""
    min_margin: float = Field(default=0, ge=0)
    """Pairs with a smaller reward difference (in rewards) are dropped."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of rules that draw."""
