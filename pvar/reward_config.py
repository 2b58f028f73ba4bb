"""Configuration of the reward models that score responses: one class per kind."""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from pvar.config_model import ConfigModel, Name
from pvar.number_format import NumberFormat, NumberFormatChoice
from pvar.references import FolderReference, ModelReference


class VaderReward(ConfigModel):
    """VADER sentiment: the compound score in [−1, 1], multiplied by a scale."""

    kind: Literal["vader"] = "vader"
    name: Name = "vader"
    """Name of the reward column and of the artifact."""
    scale: float = Field(default=4.0, gt=0)
    """Factor from compound score to reward. 4 gives a spread like a trained reward model's
    logits."""


class ClassifierReward(ConfigModel):
    """A reward model loaded as AutoModelForSequenceClassification, with one logit."""

    kind: Literal["classifier"] = "classifier"
    name: Name
    """Name of the reward column and of the artifact."""
    model: ModelReference
    """The reward model: Hub id, path, s3:// or models:/ reference. In `score.reward_models` also
    `champion`: the model that `reward_training` promoted, or its starting model before."""
    dtype: NumberFormatChoice = "auto"
    """Number format of the weights. `auto` uses bfloat16 if the hardware supports it natively.
    Rewards are always float32."""
    max_length_tokens: int = Field(default=4096, ge=8)
    """Maximum length of a conversation, in tokens. Longer ones get no reward (missing) and are
    not truncated."""


class FakeReward(ConfigModel):
    """A reward computed from a hash of the text, for trying out the workflow."""

    kind: Literal["fake"] = "fake"
    name: Name = "fake"
    """Name of the reward column and of the artifact."""
    missing_share: float = Field(default=0, ge=0, le=1)
    """Fraction of responses that get no reward."""


class ImplicitReward(ConfigModel):
    """The implicit reward of a tuned policy: β · (log π(y|x) − log π_ref(y|x))
    (`pvar/implicit_reward.py`)."""

    kind: Literal["implicit"] = "implicit"
    name: Name = "implicit"
    """Name of the reward column and of the artifact."""
    policy: ModelReference
    """The tuned model: Hub id, path, s3:// or models:/ reference."""
    reference: ModelReference
    """The reference model, from which the policy was tuned."""
    beta: float = Field(default=0.1, gt=0)
    """The β with which the policy was tuned."""
    max_length_tokens: int = Field(default=4096, ge=8)
    """Maximum length of a conversation, in tokens. Longer ones get no reward (missing) and are
    not truncated."""

    @model_validator(mode="after")
    def _models_differ(self) -> Self:
        if self.policy == self.reference:
            raise ValueError(
                f"policy and reference of the implicit reward model {self.name} are both "
                f"{self.policy}, so every reward would be 0; set policy to the tuned model"
            )
        return self


class PythonReward(ConfigModel):
    """A Python function of your own (docs/own-rewards.md). Its code is executed."""

    kind: Literal["python"] = "python"
    name: Name
    """Name of the reward column and of the artifact."""
    folder: FolderReference
    """Local folder with the function's Python files and the files that they read. The content of
    all its files decides the digest. It is executed with your rights, without a sandbox."""
    function: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
        max_length=200,
    )
    """`module:function` in that folder: prompts and responses in, a list of numbers out. None is a
    missing reward."""


class HttpReward(ConfigModel):
    """A reward model on a server (docs/own-rewards.md)."""

    kind: Literal["http"] = "http"
    name: Name
    """Name of the reward column and of the artifact."""
    model: str = Field(min_length=1, max_length=200)
    """Model name on the server at PVAR_REWARD_BASE_URL. It stands for the model in the digest:
    give another name to another model."""
    api: Literal["pvar", "vllm_classify", "vllm_score", "tei_predict", "tei_rerank"]
    """What is sent and read: `pvar` (docs/own-rewards.md), an endpoint of `vllm serve`, or one of
    text-embeddings-inference."""


class DatasetReward(ConfigModel):
    """The scores that the data holds for its own answers. Requires `sample.engine: dataset`."""

    kind: Literal["dataset"] = "dataset"
    name: Name = "dataset"
    """Name of the reward column and of the artifact."""


OwnReward = PythonReward | HttpReward
"""Reward models of which pvar knows no weights: a function, or a server."""


JudgingRewardModel = Annotated[
    VaderReward | ClassifierReward | OwnReward | FakeReward, Field(discriminator="kind")
]
"""A reward model that can be a judge: it depends on no tuned policy."""


ComputedReward = VaderReward | ClassifierReward | ImplicitReward | OwnReward | FakeReward
"""A reward model that scores any response."""

RewardModelConfig = Annotated[ComputedReward | DatasetReward, Field(discriminator="kind")]

_Reward = TypeVar("_Reward", bound=ConfigModel)


def reward_format(settings: RewardModelConfig) -> NumberFormatChoice | None:
    """The configured number format; None for reward models that load no weights."""
    match settings:
        case ClassifierReward():
            return settings.dtype
        case ImplicitReward():  # a small difference of two large sums, in which rounding shows
            return "float32"
        case VaderReward() | PythonReward() | HttpReward() | FakeReward() | DatasetReward():
            return None


def in_format(settings: _Reward, number_format: NumberFormat | None) -> _Reward:
    """The settings for a scorer, with `auto` replaced by the resolved number format."""
    if "dtype" in type(settings).model_fields:
        return settings.model_copy(update={"dtype": number_format})
    return settings
