"""A tiny random model and pairs for it, trained as stage train does, but without a workflow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pvar.records import Message, Pair
from pvar.train_config import TrainConfig
from tasks.engine.tables import ReferenceLogps, TokenPair, TrainStep, read_table, write_table
from tasks.training.logps import PromptAnswer, answer_logps
from tasks.training.token_rows import encode_pairs, with_neighbours
from tasks.training.training_run import MODEL, STEPS, TrainingPlan, run_training

QUESTIONS = ("How was it?", "And the food?", "Would you go again?", "Who came?", "Why?", "When?")
PAIRS = [
    Pair(str(n), (Message("user", question),), f"Good {n}.", f"It was bad {n}, I fear.", 1, 0)
    for n, question in enumerate(QUESTIONS)
]


class Silent:
    """A watcher that watches nothing."""

    def on_step(self, step: TrainStep, num_steps: int) -> None: ...

    def on_checkpoint(self, step: int, folder: Path) -> None: ...


def token_pairs(policy: Path, pairs: Sequence[Pair] = PAIRS) -> list[TokenPair]:
    return encode_pairs(pairs, [], AutoTokenizer.from_pretrained(policy), 1000).pairs


def train(
    folder: Path,
    policy: Path,
    pairs: Sequence[TokenPair],
    *,
    held_out: Sequence[TokenPair] | None = None,
    resume: Path | None = None,
    checkpoint_steps: int = 1000,
    **settings: Any,
) -> list[TrainStep]:
    """Train below `folder`; the reference is the policy."""
    folder.mkdir()
    model = AutoModelForCausalLM.from_pretrained(policy).eval()
    write_table(folder / "pairs.parquet", pairs, TokenPair)
    write_table(folder / "reference.parquet", reference(model, pairs), ReferenceLogps)
    if held_out is not None:
        write_table(folder / "held_out.parquet", held_out, TokenPair)
    plan = TrainingPlan(
        settings=TrainConfig.model_validate(
            {"learning_rate": 3e-3, "num_epochs": 6, "pairs_per_step": 3, "precision": "float32"}
            | settings
        ),
        policy=policy,
        pairs=folder / "pairs.parquet",
        reference=folder / "reference.parquet",
        held_out=None if held_out is None else folder / "held_out.parquet",
        resume=resume,
        scratch=folder / "scratch",
        output=folder,
        num_processes=1,
        pairs_per_device=3,
        checkpoint_steps=checkpoint_steps,
    )
    run_training(plan, Silent())
    return read_table(folder / STEPS, TrainStep)


def reference(model: Any, pairs: Sequence[TokenPair]) -> list[ReferenceLogps]:
    def logp(prompt: list[int], answer: list[int]) -> float:
        row = PromptAnswer(tuple(prompt), tuple(answer))
        return answer_logps(model, [row], autocast=False)[row]

    return [
        ReferenceLogps(
            pair.pair_id,
            *(logp(pair.prompt_ids, answer) for answer in (pair.chosen_ids, pair.rejected_ids)),
            *(logp(pair.prompt_ids, answer) for answer in (other.chosen_ids, other.rejected_ids)),
        )
        for pair, other in with_neighbours(pairs)
    ]


def mean_margin(folder: Path, pairs: Sequence[TokenPair]) -> float:
    """Mean log π(chosen|x) − log π(rejected|x) by the model's own logits."""
    logps = logps_of_pairs(folder, pairs)
    return sum(chosen - rejected for chosen, rejected in logps) / len(pairs)


def logps_of_pairs(folder: Path, pairs: Sequence[TokenPair]) -> list[tuple[float, float]]:
    """Log-probabilities of chosen and rejected by the model's own logits, one text at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logp(prompt: list[int], answer: list[int]) -> float:
        ids = torch.tensor([prompt + answer])
        with torch.inference_mode():
            logps = model(ids).logits[0].log_softmax(dim=1)
        return sum(logps[i - 1, ids[0, i]].item() for i in range(len(prompt), ids.shape[1]))

    return [
        (logp(pair.prompt_ids, pair.chosen_ids), logp(pair.prompt_ids, pair.rejected_ids))
        for pair in pairs
    ]


def trained(folder: Path) -> Path:
    """The model that a training left."""
    return folder / MODEL
