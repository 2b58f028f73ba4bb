"""One training, as run by each of its processes: load the model, train, save the model.

The model is a policy, or a reward model (`is_reward_model`).

All inputs are on disk (`TrainingPlan`), so that it can run in this process or in several. Its
events (steps, checkpoints) go to a `Watcher`, in the main process only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from pvar.train_config import TrainConfig
from tasks.engine.cpu_memory import keep_freed_memory
from tasks.engine.tables import (
    HeldOutMargin,
    ReferenceLogps,
    TokenPair,
    TrainStep,
    read_table,
    write_table,
)
from tasks.training.held_out import margin_rows, measure_margins
from tasks.training.methods import TrainingData, make_trainer
from tasks.training.model import load_policy, lora_config, save_model
from tasks.training.order import count_steps, steps_per_epoch
from tasks.training.reward_trainer import (
    load_reward_model,
    make_reward_trainer,
    save_reward_model,
)

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

MODEL = "model"
ADAPTER = "adapter"
STEPS = "steps.parquet"
HELD_OUT_MARGINS = "held_out_margins.parquet"


class TrainingPlan(BaseModel):
    """The inputs of a training and the paths of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TrainConfig
    is_reward_model: bool = False
    """Train a reward model (`reward_trainer.py`): pairs are of whole conversations."""
    policy: Path
    """Folder of the starting model."""
    pairs: Path
    """Table of `TokenPair`."""
    reference: Path | None
    """Table of `ReferenceLogps`."""
    held_out: Path | None = None
    """Table of `TokenPair` whose margins are measured; None measures nothing."""
    resume: Path | None
    """Folder of the checkpoint from which to resume."""
    scratch: Path
    """Folder for checkpoints."""
    output: Path
    """Folder for `MODEL` and `STEPS`, `HELD_OUT_MARGINS` with `held_out`, and `ADAPTER` if
    it is kept."""
    num_processes: int
    pairs_per_device: int
    checkpoint_steps: int


class Watcher(Protocol):
    """Receives the events of a training."""

    def on_step(self, step: TrainStep, num_steps: int) -> None:
        """Called after an optimiser step of `num_steps`."""
        ...

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """Called with a complete checkpoint, which is kept until this returns."""
        ...


def run_training(plan: TrainingPlan, watcher: Watcher) -> None:
    """Train from the start or from a checkpoint, and write the model and the steps."""
    import torch
    from transformers import AutoTokenizer, PrinterCallback

    if not torch.cuda.is_available():
        keep_freed_memory()
    tokenizer = AutoTokenizer.from_pretrained(plan.policy, trust_remote_code=False)
    settings = plan.settings
    data = _read(plan)
    num_epochs = _num_epochs(settings, len(data.pairs))
    make = make_reward_trainer if plan.is_reward_model else make_trainer
    trainer = make(
        settings,
        data,
        _arguments(plan, len(data.pairs)),
        model=_load(plan),
        processing_class=tokenizer,
        peft_config=settings.lora and lora_config(settings.lora),
        callbacks=[_tell(watcher, num_epochs)],
    )
    trainer.remove_callback(PrinterCallback)  # it would print each step's dictionary
    held_out = None if plan.held_out is None else read_table(plan.held_out, TokenPair)
    if held_out is not None:
        measure_margins(trainer, held_out, settings)
    trainer.train(resume_from_checkpoint=str(plan.resume) if plan.resume else None)
    _save(trainer, plan, tokenizer, num_epochs)
    if held_out is not None and trainer.is_world_process_zero():
        margins = margin_rows(trainer, held_out, settings)
        write_table(plan.output / HELD_OUT_MARGINS, margins, HeldOutMargin)


def _load(plan: TrainingPlan) -> Any:
    if plan.is_reward_model:
        return load_reward_model(plan.policy)
    return load_policy(plan.policy, plan.settings)


def _read(plan: TrainingPlan) -> TrainingData:
    logps = read_table(plan.reference, ReferenceLogps) if plan.reference is not None else []
    return TrainingData(read_table(plan.pairs, TokenPair), {row.pair_id: row for row in logps})


def _num_epochs(settings: TrainConfig, num_pairs: int) -> float:
    """Passes over the pairs; the last one may be partial."""
    return count_steps(settings, num_pairs) / steps_per_epoch(settings, num_pairs)


def _arguments(plan: TrainingPlan, num_pairs: int) -> dict[str, Any]:
    """The arguments that all trainers share."""
    import torch

    settings = plan.settings
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(plan.scratch),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_schedule,
        "warmup_steps": round(settings.warmup_share * count_steps(settings, num_pairs)),
        "per_device_train_batch_size": plan.pairs_per_device,
        "gradient_accumulation_steps": settings.pairs_per_step
        // (plan.pairs_per_device * plan.num_processes),
        "max_grad_norm": settings.max_grad_norm,
        "bf16": settings.precision == "bfloat16",
        "gradient_checkpointing": on_gpu,
        "seed": settings.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": plan.checkpoint_steps,
        "save_total_limit": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
    }


def _tell(watcher: Watcher, num_epochs: float) -> "TrainerCallback":
    from transformers import TrainerCallback

    class Tell(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if state.is_world_process_zero and logs and "loss" in logs:
                watcher.on_step(_step(state.global_step, logs, num_epochs), state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= state.max_steps:  # the end is saved as the artifact itself
                control.should_save = False

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                watcher.on_checkpoint(state.global_step, folder)

    return Tell()


def _step(number: int, logs: Mapping[str, Any], num_epochs: float) -> TrainStep:
    """One entry of TRL's log. Rewards are in the method's own units, β times log-probability.

    With a reference they are log-ratios to it; SimPO and ORPO take the mean over tokens. For the
    trainer, all epochs are one. Those of a reward model are its own.
    """
    if "mean_reward" in logs:
        logs = {**logs, **_rewards(logs)}
    accuracy = logs.get("rewards/accuracies")
    tokens, seconds = logs.get("step_tokens"), logs.get("step_seconds")  # not in older checkpoints
    return TrainStep(
        step=number,
        epoch=num_epochs * float(logs["epoch"]),
        loss=float(logs["loss"]),
        margin=float(logs["rewards/margins"]),
        accuracy=None if accuracy is None else float(accuracy),
        chosen_reward=float(logs["rewards/chosen"]),
        rejected_reward=float(logs["rewards/rejected"]),
        grad_norm=float(logs["grad_norm"]),
        learning_rate=float(logs["learning_rate"]),
        tokens_per_second=float(logs["tokens_per_second"]),
        num_tokens=None if tokens is None else int(tokens),
        seconds=None if seconds is None else float(seconds),
    )


def _rewards(logs: Mapping[str, Any]) -> dict[str, float]:
    """The log of TRL's RewardTrainer by the names of its other trainers.

    The mean over all answers is that of both sides: half the margin above it are the chosen ones.
    """
    mean, margin = float(logs["mean_reward"]), float(logs["margin"])
    return {
        "rewards/margins": margin,
        "rewards/accuracies": float(logs["accuracy"]),
        "rewards/chosen": mean + margin / 2,
        "rewards/rejected": mean - margin / 2,
    }


def _save(trainer: "Trainer", plan: TrainingPlan, tokenizer: Any, num_epochs: float) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        model = _gather(trainer, plan)
    if trainer.is_world_process_zero():
        lora = plan.settings.lora
        adapter = plan.output / ADAPTER if lora is not None and lora.keep_adapter else None
        if plan.is_reward_model:
            save_reward_model(model, tokenizer, plan.output / MODEL, plan.settings)
        else:
            save_model(model, tokenizer, plan.output / MODEL, adapter)
        steps = [
            _step(int(entry["step"]), entry, num_epochs)
            for entry in trainer.state.log_history
            if "loss" in entry
        ]
        write_table(plan.output / STEPS, steps, TrainStep)


def _gather(trainer: "Trainer", plan: TrainingPlan) -> Any:
    """The whole model, gathered from the shards of all processes, which must all call this."""
    from peft import get_peft_model

    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return None
    settings = plan.settings
    model = _load(plan)
    if settings.lora is not None:
        model = get_peft_model(model, lora_config(settings.lora))
    model.load_state_dict(weights)
    return model
