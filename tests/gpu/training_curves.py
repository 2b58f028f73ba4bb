"""Trainings of `make gpu-check`: one of each way, run once, and the curve that it left.

A training is run as stage train runs it, in this process or over several. The saved model must be
whole, finite, and not the one before.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pvar.number_format import NumberFormat
from pvar.train_config import LoraAdapter, TrainConfig
from tests.gpu.bench import Bench

if TYPE_CHECKING:
    from tasks.engine.tables import TokenPair, TrainStep

LORA = LoraAdapter(rank=16, alpha=32)


class Way(NamedTuple):
    """How a training is run."""

    method: str = "dpo"
    is_full: bool = False
    precision: NumberFormat | None = None
    """None: the machine's."""
    num_processes: int = 1
    sharding: str | None = None
    is_reward_model: bool = False


class Curve(NamedTuple):
    """What a training left."""

    losses: list[float]
    grad_norms: list[float]
    tokens: int
    """Of all steps but the first, which is slower."""
    seconds: float


def curve_of(bench: Bench, way: Way) -> Curve:
    """The training, or its figures if it was run before."""
    kept = bench.folder / f"curve-{'-'.join(map(str, way))}.json"
    if not kept.exists():
        folder = bench.folder / "training"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            kept.write_text(json.dumps(_train(bench, way, folder)))
        finally:
            shutil.rmtree(folder)
    return Curve(*json.loads(kept.read_text()))


def _train(bench: Bench, way: Way, folder: Path) -> Curve:
    from infra.accelerate import launch_file
    from tasks.engine.tables import TokenPair, TrainStep, read_table, write_table
    from tasks.training.processes import launch_training
    from tasks.training.training_run import MODEL, STEPS, TrainingPlan, run_training
    from tests.unit.tasks.training.trainings import Silent

    shape = bench.shape
    settings = TrainConfig.model_validate(
        {
            "method": way.method,
            "simpo_gamma": 0.5 if way.method == "simpo" else None,
            "beta": 2.0 if way.method == "simpo" else 0.1,
            "precision": way.precision or bench.trained,
            "learning_rate": 1e-6 if way.is_full else 1e-5,
            "warmup_share": 0.0,
            "pairs_per_step": 2 * shape.pairs_per_device * max(1, bench.num_gpus),
            "num_steps": shape.steps,
            "max_length_tokens": 4096,
            "lora": None if way.is_full else LORA,
        }
    )
    start = bench.classifier() if way.is_reward_model else bench.policy()
    pairs = _token_pairs(bench, start, is_reward_model=way.is_reward_model)
    write_table(folder / "pairs.parquet", pairs, TokenPair)
    has_reference = way.method in ("dpo", "ipo", "kto") and not way.is_reward_model
    if has_reference:
        _write_reference(bench, pairs, settings, folder / "reference.parquet")
    plan = TrainingPlan(
        settings=settings,
        is_reward_model=way.is_reward_model,
        policy=start,
        pairs=folder / "pairs.parquet",
        reference=folder / "reference.parquet" if has_reference else None,
        resume=None,
        scratch=folder / "scratch",
        output=folder,
        num_processes=way.num_processes,
        pairs_per_device=max(1, shape.pairs_per_device // way.num_processes)
        if bench.device == "cpu"
        else shape.pairs_per_device,
        checkpoint_steps=1000,
    )
    if way.num_processes > 1 or way.sharding is not None:
        launch_training(plan, Silent(), launch_file(way.sharding) if way.sharding else None)
    else:
        run_training(plan, Silent())
    _check_saved(folder / MODEL, start, is_reward_model=way.is_reward_model)
    return _figures(read_table(folder / STEPS, TrainStep))


def _figures(steps: Sequence["TrainStep"]) -> Curve:
    later = steps[1:]
    return Curve(
        [step.loss for step in steps],
        [step.grad_norm for step in steps],
        sum(step.num_tokens or 0 for step in later),
        sum(step.seconds or 0.0 for step in later),
    )


def _check_saved(folder: Path, start: Path, *, is_reward_model: bool) -> None:
    """Raise ValueError unless the saved model is whole, finite, and not the one before."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if is_reward_model else AutoModelForCausalLM
    (model, found), (before, _) = (
        kind.from_pretrained(path, dtype=torch.bfloat16, output_loading_info=True)
        for path in (folder, start)
    )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"the saved model lacks {missing}")
    changed = 0
    for one, other in zip(model.parameters(), before.parameters(), strict=True):
        if not bool(torch.isfinite(one).all()):
            raise ValueError("the saved model has weights that are not finite")
        changed += int((one != other).sum())
    if not changed:
        raise ValueError("the saved model is the one that training began with")


def _token_pairs(bench: Bench, folder: Path, *, is_reward_model: bool) -> "list[TokenPair]":
    from transformers import AutoTokenizer

    from tasks.training.label_rows import encode_labelled_pairs
    from tasks.training.token_rows import encode_pairs

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if is_reward_model:
        return encode_labelled_pairs(bench.pairs, tokenizer, 4096).pairs
    return encode_pairs(bench.pairs, [], tokenizer, 4096).pairs


def _write_reference(
    bench: Bench, pairs: "Sequence[TokenPair]", settings: TrainConfig, path: Path
) -> None:
    """What stage train finds or computes before it trains."""
    from tasks.engine.tables import ReferenceLogps, write_table
    from tasks.training.logps import PromptAnswer, answer_logps
    from tasks.training.model import load_frozen
    from tasks.training.token_rows import with_neighbours

    rows = {
        pair.pair_id: [
            PromptAnswer(tuple(pair.prompt_ids), tuple(answer))
            for answer in (
                *(pair.chosen_ids, pair.rejected_ids),
                *((other.chosen_ids, other.rejected_ids) if settings.method == "kto" else ()),
            )
        ]
        for pair, other in with_neighbours(pairs)
    }
    logps = answer_logps(
        load_frozen(bench.policy(), settings),
        [row for four in rows.values() for row in four],
        autocast=settings.precision == "bfloat16",
    )
    table = [
        ReferenceLogps(pair_id, *[logps[row] for row in four], *[None] * (4 - len(four)))
        for pair_id, four in rows.items()
    ]
    write_table(path, table, ReferenceLogps)
