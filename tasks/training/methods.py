"""TRL's trainer for each method, with our token ids and reference log-probabilities.

    dpo, ipo   DPOTrainer (arXiv 2305.18290, 2310.12036)
    kto        KTOTrainer (arXiv 2402.01306): chosen answers are desirable, rejected ones are not
    simpo      CPOTrainer with loss `simpo` and no likelihood term (arXiv 2405.14734)
    orpo       ORPOTrainer (arXiv 2403.07691)

TRL 1.16 does not accept tokenised rows or reference log-probabilities: it renders and tokenises
text (with the newline that templates write after the end of a turn) and precomputes in the
constructor. So the methods that prepare rows are overridden to do nothing. The columns are those
documented by TRL's collators. The rows are in training order over all epochs (`order.py`), so that
the trainer sees one epoch and does not shuffle.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pvar.train_config import TrainConfig
from tasks.engine.tables import ReferenceLogps, TokenPair
from tasks.training.order import training_order
from tasks.training.token_rows import with_neighbours

if TYPE_CHECKING:
    from transformers import Trainer

MASK = "attention_mask"
"""End of the names under which collators give a batch's attention masks."""

Example = dict[str, Any]
"""One row of a data set, with the trainer's columns."""


class TrainingData(NamedTuple):
    """The training data."""

    pairs: Sequence[TokenPair]
    reference: Mapping[str, ReferenceLogps]
    """Reference log-probabilities by pair id; empty for methods without a reference."""


def make_trainer(
    settings: TrainConfig, data: TrainingData, arguments: Mapping[str, Any], **parts: Any
) -> "Trainer":
    """The method's trainer. `arguments` are of transformers' kind, `parts` the trainer's own."""
    import datasets

    datasets.disable_progress_bars()
    trainer_class, config, examples = _method(settings, data, dict(arguments))
    rows_per_pair = len(examples) // len(data.pairs)
    order = [
        rows_per_pair * pair + row
        for pair in training_order(settings, len(data.pairs))
        for row in range(rows_per_pair)
    ]
    trainer: Trainer = on_tokens(trainer_class)(
        args=on_one_gpu(config),
        train_dataset=datasets.Dataset.from_list(examples).select(order),
        **parts,
    )
    return trainer


def _method(
    settings: TrainConfig, data: TrainingData, arguments: dict[str, Any]
) -> tuple[type[Any], Any, list[Example]]:
    # Dropout of the adapters, if any, is wanted; the models of today have none of their own.
    arguments |= {
        "beta": settings.beta,
        "disable_dropout": settings.lora is None or settings.lora.dropout == 0,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
    }
    match settings.method:
        case "dpo" | "ipo":
            from trl import DPOConfig, DPOTrainer

            loss = "sigmoid" if settings.method == "dpo" else "ipo"
            config = DPOConfig(
                **arguments, loss_type=[loss], max_length=None, precompute_ref_log_probs=True
            )
            return DPOTrainer, config, [_paired(pair, data.reference) for pair in data.pairs]
        case "kto":
            from trl import KTOConfig, KTOTrainer

            arguments["per_device_train_batch_size"] *= 2  # answers, not pairs
            config = KTOConfig(**arguments, max_length=None, precompute_ref_log_probs=True)
            return KTOTrainer, config, _unpaired(data)
        case "simpo":
            os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
            from trl.experimental.cpo import CPOConfig, CPOTrainer

            config = CPOConfig(
                **arguments,
                loss_type="simpo",
                cpo_alpha=0.0,
                simpo_gamma=settings.simpo_gamma,
                max_length=settings.max_length_tokens,
                remove_unused_columns=False,
            )
            return CPOTrainer, config, [_concatenated(pair) for pair in data.pairs]
        case "orpo":
            os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
            from trl.experimental.orpo import ORPOConfig, ORPOTrainer

            config = ORPOConfig(
                **arguments, max_length=settings.max_length_tokens, remove_unused_columns=False
            )
            return ORPOTrainer, config, [_concatenated(pair) for pair in data.pairs]


def _paired(pair: TokenPair, reference: Mapping[str, ReferenceLogps]) -> Example:
    """A row for TRL's DataCollatorForPreference."""
    logps = reference[pair.pair_id]
    return {
        "prompt_ids": pair.prompt_ids,
        "chosen_ids": pair.chosen_ids,
        "rejected_ids": pair.rejected_ids,
        "ref_chosen_logps": logps.chosen,
        "ref_rejected_logps": logps.rejected,
    }


def _unpaired(data: TrainingData) -> list[Example]:
    """Two rows per pair for TRL's DataCollatorForUnpairedPreference, desirable and not in turn.

    The mismatched answers of a batch are, but for the first pair's, its own answers.
    """
    examples = []
    for pair, other in with_neighbours(data.pairs):
        logps = data.reference[pair.pair_id]
        for label, answer, mismatched, logp, mismatched_logp in (
            (True, pair.chosen_ids, other.chosen_ids, logps.chosen, logps.neighbour_chosen),
            (
                False,
                pair.rejected_ids,
                other.rejected_ids,
                logps.rejected,
                logps.neighbour_rejected,
            ),
        ):
            examples.append(
                {
                    "prompt_ids": pair.prompt_ids,
                    "completion_ids": answer,
                    "KL_completion_ids": mismatched,
                    "label": label,
                    "ref_logps": logp,
                    "ref_KL_logps": mismatched_logp,
                }
            )
    return examples


def _concatenated(pair: TokenPair) -> Example:
    """A row for the collator of TRL's CPO and ORPO; labels of prompt tokens are −100."""
    example: Example = {}
    for name, answer in (("chosen", pair.chosen_ids), ("rejected", pair.rejected_ids)):
        example[f"{name}_input_ids"] = pair.prompt_ids + answer
        example[f"{name}_attention_mask"] = [1] * (len(pair.prompt_ids) + len(answer))
        example[f"{name}_labels"] = [-100] * len(pair.prompt_ids) + answer
    return example


def on_one_gpu(config: Any) -> Any:
    """The trainer's arguments, for a process that uses one GPU: several need several processes.

    Where one process sees several, transformers would spread each batch over them, so that a step
    has more pairs; most of TRL's trainers refuse to.
    """
    if config.n_gpu > 1:
        config._n_gpu = 1
    return config


def on_tokens(trainer_class: type[Any]) -> type[Any]:
    """The trainer, which uses rows as they are and logs the tokens and seconds of each step."""

    class OnTokens(trainer_class):  # type: ignore[misc]
        num_tokens = 0  # that are trained on
        num_others = 0  # KTO's mismatched answers, with their prompts
        began: float | None = None

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:  # DPO and KTO
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:  # DPO and KTO
            return dataset

        @staticmethod
        def tokenize_row(_: Example) -> Example:  # CPO and ORPO: adds no column
            return {}

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if self.began is None:
                self.began = time.perf_counter()
            masks = {name: int(inputs[name].sum()) for name in inputs if name.endswith(MASK)}
            self.num_others += masks.pop(f"KL_{MASK}", 0)
            self.num_tokens += sum(masks.values())
            return super().training_step(model, inputs, *args, **kwargs)

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            if "loss" in logs and self.began is not None:
                import torch

                seconds = time.perf_counter() - self.began
                counts = torch.tensor(
                    [[self.num_tokens, self.num_others]], device=self.accelerator.device
                )
                tokens, others = self.accelerator.gather(counts).sum(dim=0).tolist()
                logs["tokens_per_second"] = (tokens + others) / seconds
                logs["step_tokens"], logs["step_seconds"] = tokens, seconds
                self.num_tokens, self.num_others, self.began = 0, 0, None
            super().log(logs, *args, **kwargs)

    return OnTokens
