"""Who decides which of two answers is better: one model of the configuration tree per kind."""

from typing import Annotated, Literal

from pydantic import Field

from pvar.config_model import ConfigModel
from pvar.reward_config import JudgingRewardModel


class AfinnJudge(ConfigModel):
    """AFINN sentiment lexicon: the more positive answer wins."""

    kind: Literal["afinn"] = "afinn"


class AlpacaEvalJudge(ConfigModel):
    """A language model on an OpenAI-compatible server, asked for one token as in AlpacaEval 2."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    model: str = Field(min_length=1, max_length=200)
    """Name of the model on the server that PVAR_JUDGE_BASE_URL names."""
    template: str | None = None
    """ChatML text with {instruction}, {output_1} and {output_2}; None is this project's wording."""


class ArenaHardJudge(ConfigModel):
    """A language model on an OpenAI-compatible server, asked for a reasoned verdict."""

    kind: Literal["arena_hard"] = "arena_hard"
    model: str = Field(min_length=1, max_length=200)
    """Name of the model on the server that PVAR_JUDGE_BASE_URL names."""
    version: Literal["v0.1", "v2.0"] = "v2.0"
    """Whose rules read the verdict; v0.1 asks once more for one that is missing."""
    max_tokens: int = Field(default=4096, ge=16, le=131072)
    """Longest judgment, in tokens; one that is cut off before its verdict is missing."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Sampling temperature of the judge."""
    instructions: str | None = None
    """System prompt; None is this project's wording."""


class RewardModelJudge(ConfigModel):
    """A reward model: σ of the difference of its rewards."""

    kind: Literal["reward_model"] = "reward_model"
    reward_model: JudgingRewardModel
    """Must not be one of the selection's."""
    scale: float = Field(default=1.0, gt=0)
    """Reward difference per unit of log-odds."""


class FakeJudge(ConfigModel):
    """Verdicts by a hash of the texts, for trying out the workflow."""

    kind: Literal["fake"] = "fake"
    missing_share: float = Field(default=0, ge=0, le=1)
    """Share of comparisons without a verdict."""


JudgeConfig = Annotated[
    AfinnJudge | AlpacaEvalJudge | ArenaHardJudge | RewardModelJudge | FakeJudge,
    Field(discriminator="kind"),
]
