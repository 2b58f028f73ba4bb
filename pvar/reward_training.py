"""Configuration of the reward model's own training: on which labels, and what its gate requires."""

from pydantic import Field

from pvar.config_model import ConfigModel, Name
from pvar.digest import digest
from pvar.references import CHAMPION, DataReference, ModelReference
from pvar.reward_config import ClassifierReward, RewardModelConfig
from pvar.runtime_config import RuntimeConfig


class RewardTrainConfig(ConfigModel):
    """Reward modelling with TRL's RewardTrainer: all weights, on the labels so far."""

    learning_rate: float = Field(default=1e-5, gt=0, lt=1)
    """Peak learning rate, after warm-up over a tenth of the steps; it then falls linearly to 0."""
    num_epochs: int = Field(default=1, ge=1, le=100)
    """Passes over the labelled pairs."""
    pairs_per_step: int = Field(default=8, ge=1)
    """Pairs per optimiser step over all devices. The last step of an epoch is filled up."""
    max_length_tokens: int = Field(default=2048, ge=8)
    """Maximum length of a conversation with its answer, in tokens. Pairs with a longer one are
    neither trained on nor measured, and counted."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the data order."""


class RewardGateConfig(ConfigModel):
    """What a trained reward model must show on held-out labels before it scores anything."""

    min_accuracy: float = Field(default=0.6, ge=0, lt=1)
    """The lower bound of the accuracy on new held-out labels must be above this value. A model
    without any error agrees with a share 1 − f of labels of which a share f is wrong, so 0.6
    refuses batches of which 40 % or more are wrong."""
    max_accuracy_loss: float = Field(default=0.1, ge=0, le=1)
    """Maximum loss of accuracy against the reward model that would be replaced, on new and on
    earlier labels each. The lower bound of the paired change must be at least minus this value."""
    max_brier: float = Field(default=0.25, gt=0, le=1)
    """The upper bound of the Brier score of σ(margin / τ) on new held-out labels must be below this
    value. 0.25 is the score of a model that always says ½."""
    min_coverage: float = Field(default=0.95, gt=0, le=1)
    """Minimum fraction of the held-out labels for whose answers the model has rewards."""


class RewardTrainingConfig(ConfigModel):
    """The reward model that is trained, and how."""

    model: ModelReference
    """The reward model from which every training starts: a sequence classifier with one logit."""
    model_name: Name = "pvar-reward"
    """Name of the registered reward model in MLflow, with an alias `champion` of its own."""
    opponent: ModelReference = CHAMPION
    """The reward model that would be replaced. Pinned when the run begins; `champion` is the
    promoted one, or `model` if none is promoted."""
    earlier: DataReference | None = None
    """Labels of earlier batches, in the forms of `ingest.source`. Retraining sets it."""
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the labelled prompts that no reward model is trained on, chosen by a hash of the
    prompt's id, so that a prompt stays held out. Leave it as it is: with a larger one, the earlier
    model was trained on a part of what is measured."""
    train: RewardTrainConfig = RewardTrainConfig()
    """How it is trained."""
    gate: RewardGateConfig = RewardGateConfig()
    """What it must show."""


def is_held_out_label(prompt_id: str, held_out_fraction: float) -> bool:
    """Whether reward models are measured on the labels of this prompt, instead of trained.

    True with probability `held_out_fraction` over prompt ids, apart from the split of stage ingest.
    """
    position = int(digest(["held-out label", prompt_id], length=8), 16) / 16**8
    return position < held_out_fraction


def scores_by_champion(model: RewardModelConfig) -> bool:
    """Whether a reward model is the promoted one of `reward_training`."""
    return isinstance(model, ClassifierReward) and model.model == CHAMPION


def refuse_unfit_reward_training(
    training: RewardTrainingConfig | None,
    reward_models: tuple[RewardModelConfig, ...],
    runtime: RuntimeConfig,
) -> None:
    """Raise ValueError if reward models and the training of one do not fit together."""
    champions = [model.name for model in reward_models if scores_by_champion(model)]
    if training is None:
        if champions:
            raise ValueError(
                f"the model of reward model {champions[0]} is champion, which is the reward model "
                "that reward_training promotes, but reward_training is null; set reward_training, "
                "or name the model"
            )
        return
    if training.model == CHAMPION:
        raise ValueError(
            "reward_training.model is champion, but every training starts from the same model; "
            "name the model from which the first one starts"
        )
    per_step = training.train.pairs_per_step
    at_once = runtime.pairs_per_device * runtime.num_processes
    if per_step % at_once:
        raise ValueError(
            f"reward_training.train.pairs_per_step ({per_step}) is not a multiple of "
            f"runtime.pairs_per_device ({runtime.pairs_per_device}) times runtime.num_processes "
            f"({runtime.num_processes}); change one of the three"
        )
