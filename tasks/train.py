"""Stage train: direct preference optimisation with TRL on the selected pairs.

The loss is DPO's −log σ(β (log π_θ(y_w)/π_ref(y_w) − log π_θ(y_l)/π_ref(y_l))) (arXiv 2305.18290)
or IPO's square; the reference is the starting policy, its log-probabilities are computed once.
Weights that learn are float32. Checkpoints go to the store, and a run that was killed goes on
from the newest complete one. Pairs that are too long are left out and counted, never cut.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from pvar.accounts import Accounts
from pvar.artifacts import ShardSpec, Summary
from pvar.chat import conversation_token_ids
from pvar.config import TrainConfig
from pvar.errors import InputError, StageError
from pvar.records import Pair
from tasks.artifact import Artifact
from tasks.checkpoints import delete_checkpoints, newest_checkpoint, save_checkpoint
from tasks.select import PAIRS
from tasks.stage import Job, Stage, Work
from tasks.tables import RejectedRow, TrainStep, write_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback
    from trl import DPOTrainer

logger = logging.getLogger(__name__)

MODEL = "model"
STEPS = "steps.parquet"
REJECTED = "rejected.parquet"

LOSSES = {"dpo": "sigmoid", "ipo": "ipo"}
"""TRL's name of each method's loss."""


class TrainSpec(BaseModel):
    """What decides the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    """Digest of the starting model, which is also the reference."""
    policy_location: str = Field(exclude=True)
    settings: TrainConfig


class _Fitting(NamedTuple):
    pairs: list[Pair]
    rejected: list[RejectedRow]


@contextmanager
def _open_worker(job: Job[TrainSpec]) -> Iterator[Work]:
    def train(_: ShardSpec, folder: Path) -> Accounts:
        from transformers import AutoTokenizer

        pairs = job.inputs["pairs"].rows(PAIRS, Pair)
        policy = job.ports.model_folder(job.spec.policy_location)
        tokenizer = AutoTokenizer.from_pretrained(policy, trust_remote_code=False)
        fitting = _leave_out_long(pairs, tokenizer, job.spec.settings.max_length_tokens)
        if not fitting.pairs:
            raise InputError(
                f"{job.inputs['pairs'].keys.root}: none of its {len(pairs)} pairs can be trained "
                f"on ({len(fitting.rejected)} longer than train.max_length_tokens = "
                f"{job.spec.settings.max_length_tokens}); see the accounts of stage select"
            )
        trainer = _build_trainer(job, policy, tokenizer, fitting.pairs)
        checkpoint = newest_checkpoint(job.ports.store, _checkpoints(job), job.scratch / "resume")
        if checkpoint is not None:
            logger.info("%s: going on from %s", job.keys.root, checkpoint.name)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        _save_model(trainer, tokenizer, folder / MODEL)
        write_table(folder / STEPS, _steps(trainer.state.log_history), TrainStep)
        write_table(folder / REJECTED, fitting.rejected, RejectedRow)
        return Accounts(
            rows_in=len(pairs),
            rows_out=len(fitting.pairs),
            rejected={"too_long": len(fitting.rejected)} if fitting.rejected else {},
        )

    yield train


def _checkpoints(job: Job[TrainSpec]) -> str:
    return f"{job.keys.root}/checkpoints"


def _leave_out_long(
    pairs: list[Pair], tokenizer: "PreTrainedTokenizerBase", max_length_tokens: int
) -> _Fitting:
    fitting, rejected = [], []
    for pair in pairs:
        length = max(
            len(conversation_token_ids(tokenizer, pair.messages, answer))
            for answer in (pair.chosen, pair.rejected)
        )
        if length > max_length_tokens:
            rejected.append(RejectedRow(pair.prompt_id, "too_long", f"{length} tokens"))
        else:
            fitting.append(pair)
    return _Fitting(fitting, rejected)


def _build_trainer(
    job: Job[TrainSpec], policy: Path, tokenizer: "PreTrainedTokenizerBase", pairs: list[Pair]
) -> "DPOTrainer":
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import DPOTrainer

    settings = job.spec.settings
    frozen_base = settings.lora is not None and settings.precision == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(
        policy,
        dtype=torch.bfloat16 if frozen_base else torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
    )
    lora = settings.lora and LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = DPOTrainer(
        model=model,
        args=_training_arguments(job, len(pairs)),
        train_dataset=Dataset.from_list([_example(pair) for pair in pairs]),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[_report_to(job)],
    )
    trainer.remove_callback(PrinterCallback)  # it would print each step's dictionary
    return trainer


def _training_arguments(job: Job[TrainSpec], num_pairs: int) -> Any:
    import torch
    from trl import DPOConfig

    settings = job.spec.settings
    per_device = min(job.runtime.pairs_per_device, settings.pairs_per_step)
    steps_per_epoch = -(-num_pairs // settings.pairs_per_step)
    return DPOConfig(
        output_dir=str(job.scratch / "trainer"),
        loss_type=[LOSSES[settings.method]],
        beta=settings.beta,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_schedule,
        warmup_steps=round(settings.warmup_share * steps_per_epoch * settings.num_epochs),
        num_train_epochs=settings.num_epochs,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=settings.pairs_per_step // per_device,
        max_grad_norm=settings.max_grad_norm,
        max_length=None,
        bf16=settings.precision == "bfloat16",
        gradient_checkpointing=torch.cuda.is_available(),
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=per_device,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=job.runtime.checkpoint_steps,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _example(pair: Pair) -> dict[str, list[dict[str, str]]]:
    """A row in TRL's conversational preference format."""
    return {
        "prompt": [message._asdict() for message in pair.messages],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }


def _report_to(job: Job[TrainSpec]) -> "TrainerCallback":
    """Sends every step's figures to tracking and every checkpoint to the store."""
    from transformers import TrainerCallback

    class Report(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                step = _step(state.global_step, logs)
                if not math.isfinite(step.loss):
                    raise StageError(
                        f"{job.keys.root}: the loss is {step.loss} at step {step.step}: training "
                        f"diverged; lower train.learning_rate ({job.spec.settings.learning_rate:g})"
                    )
                logger.info(
                    "%s: step %d of %d: loss %.4f, margin %.3f, accuracy %.2f",
                    job.keys.root,
                    step.step,
                    state.max_steps,
                    step.loss,
                    step.margin,
                    step.accuracy,
                )
                figures = step._asdict()
                figures.pop("step")
                job.log_step(step.step, figures)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step < state.max_steps:  # the end is saved as the artifact itself
                local = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                save_checkpoint(job.ports.store, _checkpoints(job), state.global_step, local)

    return Report()


def _step(number: int, logs: Mapping[str, Any]) -> TrainStep:
    """One entry of TRL's log; rewards are β times log-ratios to the reference."""
    return TrainStep(
        step=number,
        epoch=float(logs["epoch"]),
        loss=float(logs["loss"]),
        margin=float(logs["rewards/margins"]),
        accuracy=float(logs["rewards/accuracies"]),
        chosen_reward=float(logs["rewards/chosen"]),
        rejected_reward=float(logs["rewards/rejected"]),
        grad_norm=float(logs["grad_norm"]),
        learning_rate=float(logs["learning_rate"]),
    )


def _steps(history: list[dict[str, Any]]) -> list[TrainStep]:
    return [_step(entry["step"], entry) for entry in history if "loss" in entry]


def _save_model(trainer: "DPOTrainer", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """A plain Hugging Face folder: adapters merged, bfloat16, safetensors."""
    import torch
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def _summarise(job: Job[TrainSpec], artifact: Artifact) -> Summary:
    delete_checkpoints(job.ports.store, _checkpoints(job))
    steps = artifact.rows(STEPS, TrainStep)
    last = steps[-1]
    return {
        "num_steps": len(steps),
        "num_pairs": artifact.manifest.accounts.rows_out,
        "loss_first": steps[0].loss,
        "loss_last": last.loss,
        "margin_last": last.margin,
        "accuracy_last": last.accuracy,
        "grad_norm_max": max(step.grad_norm for step in steps),
    }


TRAIN = Stage(
    name="train",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
