"""Reward modelling on a tiny classifier: what is read, what is learned, saved and resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from infra.rewards.classifier import load_classifier_scorer
from pvar.errors import ModelError
from pvar.ports import ScoreRequest
from pvar.records import Pair
from pvar.reward_config import ClassifierReward
from pvar.train_config import TrainConfig
from tasks.engine.tables import TokenPair, TrainStep, read_table, write_table
from tasks.training.label_rows import encode_labelled_pairs
from tasks.training.reward_trainer import load_reward_model, save_reward_model
from tasks.training.training_run import MODEL, STEPS, TrainingPlan, run_training
from tests.unit.infra.tiny_models import save_classifier, save_language_model
from tests.unit.tasks.training.trainings import PAIRS, Silent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("start"), seed=1)


def train(
    folder: Path, start: Path, *, resume: Path | None = None, checkpoint_steps: int = 1000
) -> list[TrainStep]:
    """Eight steps, each on all six pairs."""
    folder.mkdir()
    pairs = encode_labelled_pairs(PAIRS, AutoTokenizer.from_pretrained(start), 1000).pairs
    write_table(folder / "pairs.parquet", pairs, TokenPair)
    settings = {
        "learning_rate": 3e-3, "num_epochs": 8, "pairs_per_step": 6, "precision": "float32",
    }  # fmt: skip
    plan = TrainingPlan(
        settings=TrainConfig.model_validate(settings),
        is_reward_model=True,
        policy=start,
        pairs=folder / "pairs.parquet",
        reference=None,
        resume=resume,
        scratch=folder / "scratch",
        output=folder,
        num_processes=1,
        pairs_per_device=3,
        checkpoint_steps=checkpoint_steps,
    )
    run_training(plan, Silent())
    return read_table(folder / STEPS, TrainStep)


@pytest.fixture(scope="module")
def trained(start: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainStep]]:
    folder = tmp_path_factory.mktemp("trained") / "whole"
    return folder, train(folder, start, checkpoint_steps=3)


def rewards(model: Path, pairs: Sequence[Pair] = PAIRS) -> list[tuple[float, float]]:
    """Rewards of chosen and rejected, as stage score gives them."""
    settings = ClassifierReward(name="tiny", model="./tiny", dtype="float32")
    scorer = load_classifier_scorer(model, settings, 500)
    requests = [
        ScoreRequest(pair.prompt_id, f"{pair.prompt_id}-{side}", pair.messages, answer)
        for pair in pairs
        for side, answer in enumerate((pair.chosen, pair.rejected))
    ]
    found: list[Any] = [score.reward for score in scorer.score(requests)]
    return list(zip(found[::2], found[1::2], strict=True))


def test_training_reads_the_rewards_that_scorers_give(
    start: Path, trained: tuple[Path, list[TrainStep]]
) -> None:
    """Padding is the end-of-turn token here, which each conversation ends with, too.

    The first step's figures are those of the starting model, over all pairs.
    """
    first = trained[1][0]
    before = rewards(start)
    assert first.chosen_reward == pytest.approx(sum(chosen for chosen, _ in before) / 6, rel=1e-3)
    assert first.rejected_reward == pytest.approx(sum(other for _, other in before) / 6, rel=1e-3)
    assert first.margin == pytest.approx(sum(one - other for one, other in before) / 6, rel=1e-3)
    assert first.accuracy == pytest.approx(sum(one > other for one, other in before) / 6)


def test_labels_are_learned(start: Path, trained: tuple[Path, list[TrainStep]]) -> None:
    folder, steps = trained
    assert all(chosen > rejected for chosen, rejected in rewards(folder / MODEL))
    assert steps[-1].loss < steps[0].loss
    assert len(steps) == 8
    assert [step.num_tokens for step in steps] == [steps[0].num_tokens] * 8


def test_transformers_scores_the_saved_model_like_the_scorer(
    trained: tuple[Path, list[TrainStep]],
) -> None:
    """In a padded batch, with the padding token that the tokenizer was saved with."""
    folder = trained[0] / MODEL
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pairs = encode_labelled_pairs(PAIRS, tokenizer, 1000).pairs
    rows = [row for pair in pairs for row in (pair.chosen_ids, pair.rejected_ids)]
    width = max(map(len, rows))
    ids = [[*row, *[tokenizer.pad_token_id] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits[:, 0]
    wanted = [reward for both in rewards(folder) for reward in both]
    assert logits.tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_a_training_goes_on_from_a_checkpoint(
    tmp_path: Path, start: Path, trained: tuple[Path, list[TrainStep]]
) -> None:
    folder, wanted = trained
    (checkpoint,) = (folder / "scratch").glob("checkpoint-6")
    found = train(tmp_path / "resumed", start, resume=checkpoint)
    assert [step.step for step in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [step.seconds for step in found[:6]] == [step.seconds for step in wanted[:6]]
    assert [step.loss for step in found] == pytest.approx([step.loss for step in wanted], abs=1e-4)


def test_the_head_is_stored_in_float32_whatever_the_precision(tmp_path: Path, start: Path) -> None:
    settings = TrainConfig(precision="bfloat16")
    tokenizer = AutoTokenizer.from_pretrained(start)
    save_reward_model(load_reward_model(start), tokenizer, tmp_path, settings)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.pop("score.weight").dtype == torch.float32
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert rewards(tmp_path) == [pytest.approx(both, rel=0.1, abs=0.1) for both in rewards(start)]


def test_a_model_without_one_logit_is_refused(tmp_path: Path) -> None:
    policy = save_language_model(tmp_path / "policy")
    with pytest.raises(ModelError, match=r"2 logits and lacks score\.weight is no reward model"):
        load_reward_model(policy)
    two = save_classifier(tmp_path / "two", num_labels=2)
    with pytest.raises(ModelError, match="with 2 logits is no reward model"):
        load_reward_model(two)


def test_a_pair_that_is_too_long_is_left_out_and_counted(start: Path) -> None:
    # Beside the answer, "Why?" is a conversation of 1 + 8 + 4 + 1 + 13 + 1 = 28 tokens.
    tokenizer = AutoTokenizer.from_pretrained(start)
    why = PAIRS[4]
    fits, too_long = (why._replace(chosen="a" * length, rejected="b") for length in (9, 10))
    encoded = encode_labelled_pairs([fits, too_long], tokenizer, 37)
    assert [len(pair.chosen_ids) for pair in encoded.pairs] == [37]
    assert [(row.rule, row.detail) for row in encoded.rejected] == [("too_long", "38 tokens")]
