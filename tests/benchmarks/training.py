"""Speed of training 64 pairs, beside a plain TRL script with the same settings.

python tests/benchmarks/training.py [--pairs 64] [--epochs 1]

SmolLM2-135M, LoRA of rank 16, 8 pairs a step, 4 at once, DPO, the base in the format that `auto`
means on the hardware. Pairs are the demo's prompts with answers of random words (mean 30). Each way
is timed from texts on disk to a saved model, its own loading of the model included; libraries are
loaded and warmed up before. The plain script is TRL's documentation: texts, a peft_config, and the
reference recomputed in each step by switching the adapters off. Seconds are of the clock on the
wall.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TypeVar

import torch
from datasets import Dataset, disable_progress_bars
from machine import describe_machine
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer

from infra.bundled_model import convert_bundled_model
from infra.hardware import read_hardware
from pvar.number_format import resolve
from pvar.records import Message, Pair
from pvar.runtime_config import RuntimeConfig
from pvar.train_config import LoraAdapter, TrainConfig
from tasks.engine.tables import ReferenceLogps, TokenPair, TrainStep, read_table, write_table
from tasks.training.logps import PromptAnswer, answer_logps
from tasks.training.model import load_policy
from tasks.training.token_rows import encode_pairs
from tasks.training.training_run import STEPS, TrainingPlan, run_training

PAIRS_PER_STEP = 8
Result = TypeVar("Result")


def at_once(settings: TrainConfig) -> int:
    """Pairs in memory: the project's default, for both."""
    return min(RuntimeConfig().pairs_per_device, settings.pairs_per_step)


class Silent:
    """Nobody watches."""

    def on_step(self, step: TrainStep, num_steps: int) -> None: ...

    def on_checkpoint(self, step: int, folder: Path) -> None: ...


def make_pairs(num_pairs: int) -> list[Pair]:
    """Prompts of the demo with answers of random words."""
    lines = resources.files("pvar").joinpath("data/sentiment_prompts.jsonl").read_text()
    prompts = [json.loads(line)["prompt"] for line in lines.splitlines()[:num_pairs]]
    words = sorted({word for prompt in prompts for word in prompt.split()})
    rng = random.Random(0)

    def answer() -> str:
        return " ".join(rng.choices(words, k=rng.randint(10, 50)))

    return [
        Pair(str(number), (Message("user", prompt),), answer(), answer(), None, None)
        for number, prompt in enumerate(prompts)
    ]


def plain(policy: Path, pairs: list[Pair], settings: TrainConfig, folder: Path) -> list[float]:
    """A plain TRL script; the losses."""
    assert settings.lora is not None
    rows = [
        {
            "prompt": [message._asdict() for message in pair.messages],
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in pairs
    ]
    num_steps = settings.num_epochs * -(-len(pairs) // settings.pairs_per_step)
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            policy, dtype=getattr(torch, settings.precision)
        ),
        args=DPOConfig(
            output_dir=str(folder),
            beta=settings.beta,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_schedule,
            warmup_steps=round(settings.warmup_share * num_steps),
            num_train_epochs=settings.num_epochs,
            per_device_train_batch_size=at_once(settings),
            gradient_accumulation_steps=settings.pairs_per_step // at_once(settings),
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            data_seed=settings.seed,
            max_length=None,
            bf16=settings.precision == "bfloat16",
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(policy),
        peft_config=LoraConfig(
            r=settings.lora.rank,
            lora_alpha=settings.lora.alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.model.merge_and_unload().save_pretrained(folder / "model")
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def compute_reference(policy: Path, pairs: list[Pair], settings: TrainConfig, folder: Path) -> None:
    """What a first run does before it trains, and a later one finds."""
    model = load_policy(policy, settings).eval()
    rows = {
        pair.pair_id: [
            PromptAnswer(tuple(pair.prompt_ids), tuple(answer))
            for answer in (pair.chosen_ids, pair.rejected_ids)
        ]
        for pair in encode_pairs(
            pairs, [], AutoTokenizer.from_pretrained(policy), settings.max_length_tokens
        ).pairs
    }
    logps = answer_logps(
        model,
        [row for both in rows.values() for row in both],
        autocast=settings.precision == "bfloat16",
    )
    table = [
        ReferenceLogps(pair_id, logps[chosen], logps[rejected], None, None)
        for pair_id, (chosen, rejected) in rows.items()
    ]
    write_table(folder / "reference.parquet", table, ReferenceLogps)


def ours(policy: Path, pairs: list[Pair], settings: TrainConfig, folder: Path) -> list[float]:
    """What a run does that finds the reference; the losses."""
    encoded = encode_pairs(
        pairs, [], AutoTokenizer.from_pretrained(policy), settings.max_length_tokens
    )
    write_table(folder / "pairs.parquet", encoded.pairs, TokenPair)
    plan = TrainingPlan(
        settings=settings,
        policy=policy,
        pairs=folder / "pairs.parquet",
        reference=folder / "reference.parquet",
        resume=None,
        scratch=folder / "scratch",
        output=folder,
        num_processes=1,
        pairs_per_device=at_once(settings),
        checkpoint_steps=1000,
    )
    run_training(plan, Silent())
    return [step.loss for step in read_table(folder / STEPS, TrainStep)]


def seconds(run: Callable[[], Result]) -> tuple[float, Result]:
    """Time on the wall, and the result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main() -> None:
    """Time the ways and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    disable_progress_bars()
    disable_progress_bar()
    settings = TrainConfig(
        precision=resolve("auto", read_hardware(), learns=True),
        learning_rate=5e-4,
        num_epochs=options.epochs,
        pairs_per_step=PAIRS_PER_STEP,
        lora=LoraAdapter(rank=16, alpha=32),
    )
    pairs = make_pairs(options.pairs)
    with tempfile.TemporaryDirectory() as name:
        policy, warm, here = (Path(name) / part for part in ("policy", "warm", "ours"))
        convert_bundled_model("smollm2-135m-instruct", policy)
        for folder in (warm, here):
            folder.mkdir()
        once = settings.model_copy(update={"pairs_per_step": 1, "num_epochs": 1})
        compute_reference(policy, pairs[:1], once, warm)
        ours(policy, pairs[:1], once, warm)
        plain(policy, pairs[:1], once, Path(name) / "warm-trl")

        by_trl, trl_losses = seconds(lambda: plain(policy, pairs, settings, Path(name) / "trl"))
        reference, _ = seconds(lambda: compute_reference(policy, pairs, settings, here))
        cached, losses = seconds(lambda: ours(policy, pairs, settings, here))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}, torch {torch.__version__}")
    print("| way | seconds | as fast as plain TRL | loss, first and last step |\n|---|---|---|---|")
    for way, taken, found in (
        ("plain TRL", by_trl, trl_losses),
        ("this project, first run on these pairs", reference + cached, losses),
        ("this project, later runs (reference found)", cached, losses),
    ):
        print(f"| {way} | {taken:.1f} | {by_trl / taken:.2f} × | {found[0]:.3f}, {found[-1]:.3f} |")


if __name__ == "__main__":
    main()
