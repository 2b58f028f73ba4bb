"""Configuration of the judge, which decides which of two answers is better: one class per kind."""

from typing import Annotated, Literal

from pydantic import Field

from pvar.config_model import ConfigModel
from pvar.reward_config import JudgingRewardModel


class AfinnJudge(ConfigModel):
    """AFINN sentiment lexicon: the more positive answer wins."""

    kind: Literal["afinn"] = "afinn"
    scale: float | None = Field(default=None, gt=0)
    """Difference in valence per word (from −5 to 5) per unit of log-odds: the preference is σ of
    the difference over the scale. `null` gives the more positive answer all of the preference."""


class AlpacaEvalJudge(ConfigModel):
    """AlpacaEval 2: a language model on an OpenAI-compatible server answers with one token."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    model: str = Field(min_length=1, max_length=200)
    """Model name on the server at PVAR_JUDGE_BASE_URL."""
    template: str | None = None
    """ChatML template with {instruction}, {output_1} and {output_2}. `null` uses the built-in
    template."""


class ArenaHardJudge(ConfigModel):
    """Arena-Hard: a language model on an OpenAI-compatible server writes a reasoned verdict."""

    kind: Literal["arena_hard"] = "arena_hard"
    model: str = Field(min_length=1, max_length=200)
    """Model name on the server at PVAR_JUDGE_BASE_URL."""
    version: Literal["v0.1", "v2.0"] = "v2.0"
    """Arena-Hard version whose rules parse the verdict. v0.1 asks a second time if the verdict is
    missing."""
    max_tokens: int = Field(default=4096, ge=16, le=131072)
    """Maximum length of a judgment, in tokens. If it is truncated before the verdict, the verdict
    is missing."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Sampling temperature of the judge."""
    instructions: str | None = None
    """System prompt. `null` uses the built-in prompt."""


class RewardModelJudge(ConfigModel):
    """A reward model as judge: the preference is σ of the difference in reward."""

    kind: Literal["reward_model"] = "reward_model"
    reward_model: JudgingRewardModel
    """The reward model. It must not be one of score.reward_models."""
    scale: float = Field(default=1.0, gt=0)
    """Difference in reward per unit of log-odds."""


class FakeJudge(ConfigModel):
    """Verdicts computed from a hash of the texts, for trying out the workflow."""

    kind: Literal["fake"] = "fake"
    missing_share: float = Field(default=0, ge=0, le=1)
    """Fraction of comparisons without a verdict."""


class JudgePrice(ConfigModel):
    """Prices of one model on a judge's server."""

    model: str = Field(min_length=1, max_length=200)
    """Model name on the server, as in the judge's `model`."""
    usd_per_million_prompt_tokens: float = Field(ge=0)
    """Price of prompt tokens, in USD per million."""
    usd_per_million_completion_tokens: float = Field(ge=0)
    """Price of completion tokens, in USD per million."""


JudgeConfig = Annotated[
    AfinnJudge | AlpacaEvalJudge | ArenaHardJudge | RewardModelJudge | FakeJudge,
    Field(discriminator="kind"),
]
