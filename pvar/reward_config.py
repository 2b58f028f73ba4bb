"""Which reward models score responses: one model of the configuration tree per kind."""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from pvar.config_model import ConfigModel, Name
from pvar.number_format import NumberFormat, NumberFormatChoice
from pvar.references import ModelReference


class VaderReward(ConfigModel):
    """VADER sentiment: the compound score in [−1, 1], times a scale."""

    kind: Literal["vader"] = "vader"
    name: Name = "vader"
    """Name of the column and of the artifact."""
    scale: float = Field(default=4.0, gt=0)
    """Reward per unit of compound score: 4 spreads it like a trained reward model's logits."""


class ClassifierReward(ConfigModel):
    """A reward model of the form AutoModelForSequenceClassification with one logit."""

    kind: Literal["classifier"] = "classifier"
    name: Name
    """Name of the column and of the artifact."""
    model: ModelReference
    """Hub id, path, s3:// or models:/ reference."""
    dtype: NumberFormatChoice = "auto"
    """Number format of the weights; rewards are float32 in any case. auto: bfloat16 where the
    hardware computes it natively."""
    max_length_tokens: int = Field(default=4096, ge=8)
    """Longer conversations get no reward (missing), never one of a shortened text."""


class FakeReward(ConfigModel):
    """A hash of the text as reward, for trying out the workflow."""

    kind: Literal["fake"] = "fake"
    name: Name = "fake"
    """Name of the column and of the artifact."""
    missing_share: float = Field(default=0, ge=0, le=1)
    """Share of responses that get no reward."""


class ImplicitReward(ConfigModel):
    """What a tuned policy prefers: β · (log π(y|x) − log π_ref(y|x))
    (`pvar/implicit_reward.py`)."""

    kind: Literal["implicit"] = "implicit"
    name: Name = "implicit"
    """Name of the column and of the artifact."""
    policy: ModelReference
    """The tuned model: Hub id, path, s3:// or models:/ reference."""
    reference: ModelReference
    """The model that it was tuned from."""
    beta: float = Field(default=0.1, gt=0)
    """The β that it was tuned with."""
    max_length_tokens: int = Field(default=4096, ge=8)
    """Longer conversations get no reward (missing), never one of a shortened text."""

    @model_validator(mode="after")
    def _models_differ(self) -> Self:
        if self.policy == self.reference:
            raise ValueError(
                f"policy and reference of the implicit reward are both {self.policy}: all its "
                "rewards would be 0; give the tuned model as policy"
            )
        return self


JudgingRewardModel = Annotated[
    VaderReward | ClassifierReward | FakeReward, Field(discriminator="kind")
]
"""One that judges prompts which no policy was tuned on."""


RewardModelConfig = Annotated[
    VaderReward | ClassifierReward | ImplicitReward | FakeReward, Field(discriminator="kind")
]

_Reward = TypeVar("_Reward", bound=ConfigModel)


def reward_format(settings: RewardModelConfig) -> NumberFormatChoice | None:
    """Number format that the settings ask for; None for reward models that load no weights."""
    match settings:
        case ClassifierReward():
            return settings.dtype
        case ImplicitReward():  # a small difference of two large sums, in which rounding shows
            return "float32"
        case VaderReward() | FakeReward():
            return None


def in_format(settings: _Reward, number_format: NumberFormat | None) -> _Reward:
    """The settings with the format that `auto` was resolved to, as a scorer is given them."""
    if "dtype" in type(settings).model_fields:
        return settings.model_copy(update={"dtype": number_format})
    return settings
