"""TRL's RewardTrainer with our token ids, and the reward model that it trains.

    loss = −log σ(r(y_w) − r(y_l)), r the model's one logit at the last token of the conversation

Transformers' sequence classifiers look for that token by its id: the last one that is not padding.
Where padding is the end-of-turn token (Llama 3, SmolLM2), they would take the token before it, and
scorers (`infra/rewards/`) take the last one. So padding gets an id with which no conversation ends.
The model and its tokenizer are saved with that id, so that transformers scores alike.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvar.errors import ModelError
from pvar.train_config import TrainConfig
from tasks.training.methods import TrainingData, on_one_gpu, on_tokens
from tasks.training.order import training_order

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer


def make_reward_trainer(
    settings: TrainConfig, data: TrainingData, arguments: Mapping[str, Any], **parts: Any
) -> "Trainer":
    """The trainer, for pairs whose answers are whole conversations; as `methods.make_trainer`.

    Sets the padding token of `parts["processing_class"]`.
    """
    import datasets
    from trl import RewardConfig, RewardTrainer

    datasets.disable_progress_bars()
    rows = [row for pair in data.pairs for row in (pair.chosen_ids, pair.rejected_ids)]
    _set_padding(parts["processing_class"], {row[-1] for row in rows})
    config = RewardConfig(
        **arguments,
        max_length=None,  # longer ones are left out already
        num_train_epochs=1,
        train_sampling_strategy="sequential",
    )
    examples = [
        {"chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids} for pair in data.pairs
    ]
    order = training_order(settings, len(data.pairs))
    dataset = datasets.Dataset.from_list(examples).select(order)
    trainer: Trainer = on_tokens(RewardTrainer)(
        args=on_one_gpu(config), train_dataset=dataset, **parts
    )
    return trainer


def _set_padding(tokenizer: "PreTrainedTokenizerBase", last_ids: Iterable[int]) -> None:
    """Keep the padding token, or replace it by the first token with which no row ends."""
    taken = set(last_ids)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in taken:
        return
    free = next(number for number in range(len(tokenizer)) if number not in taken)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free)


def load_reward_model(folder: Path) -> Any:
    """A sequence classifier with one logit, in float32; ModelError for any other model."""
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the reward model in {folder} cannot be loaded: {error}") from error
    missing = sorted(found["missing_keys"])
    if missing or model.config.num_labels != 1:
        lacks = f" and lacks {missing[0]}" if missing else ""
        raise ModelError(
            f"{folder}: a {type(model).__name__} with {model.config.num_labels} logits{lacks} is "
            "no reward model to start from; set reward_training.model to a sequence classifier "
            "with one logit"
        )
    return model


def save_reward_model(model: Any, tokenizer: Any, folder: Path, settings: TrainConfig) -> None:
    """Write the model in the precision of its training, but its head in float32.

    A head in bfloat16 would round rewards to 3 digits.
    """
    import torch

    if settings.precision == "bfloat16":
        model.to(torch.bfloat16).score.to(torch.float32)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
