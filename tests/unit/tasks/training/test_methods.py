"""Every method learns what is preferred, full or with adapters, and says what it does per step."""

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, TrainingArguments

from tests.unit.infra.tiny_models import save_language_model
from tests.unit.tasks.training.trainings import mean_margin, token_pairs, train, trained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

METHODS: dict[str, dict[str, Any]] = {
    "dpo": {},
    "ipo": {},
    "kto": {},
    "simpo": {"beta": 2.0, "simpo_gamma": 0.5},
    "orpo": {},
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("policy"), seed=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_what_is_preferred(tmp_path: Path, policy: Path, method: str) -> None:
    pairs = token_pairs(policy)
    before = mean_margin(policy, pairs)
    swapped = [
        pair._replace(chosen_ids=pair.rejected_ids, rejected_ids=pair.chosen_ids) for pair in pairs
    ]

    steps = train(tmp_path / "right", policy, pairs, method=method, **METHODS[method])
    train(tmp_path / "swapped", policy, swapped, method=method, **METHODS[method])

    # In nats of the whole answers, by the trained models' own logits.
    assert mean_margin(trained(tmp_path / "right"), pairs) > before + 5
    assert mean_margin(trained(tmp_path / "swapped"), pairs) < before - 5
    assert steps[-1].loss < steps[0].loss
    assert steps[-1].margin > steps[0].margin
    for step in steps:
        figures = [value for value in step._asdict().values() if value is not None]
        assert all(math.isfinite(value) for value in figures)
        assert (step.accuracy is None) == (method == "kto")
        assert step.margin == pytest.approx(step.chosen_reward - step.rejected_reward, abs=1e-4)
        assert step.tokens_per_second is not None
        assert step.tokens_per_second > 0


@pytest.mark.parametrize(
    ("method", "first_loss"),
    [
        # The policy is its reference, so all log-ratios are 0 at the first step.
        ("dpo", math.log(2)),  # −log σ(0)
        ("ipo", 25.0),  # (0 − 1/(2·0.1))²
        ("kto", 0.5),  # 1 − σ(0)
    ],
)
def test_the_first_loss_is_that_of_a_policy_that_is_its_reference(
    tmp_path: Path, policy: Path, method: str, first_loss: float
) -> None:
    steps = train(tmp_path / "run", policy, token_pairs(policy), method=method, num_epochs=1)
    assert steps[0].loss == pytest.approx(first_loss, abs=1e-4)
    assert steps[0].margin == pytest.approx(0, abs=1e-4)


def test_one_process_trains_on_one_gpu_where_there_are_several(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers counts them: it would train on all of them, with another step."""
    prepare = TrainingArguments.__post_init__

    def see_two(arguments: TrainingArguments) -> None:
        prepare(arguments)
        arguments._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", see_two)
    (step, *_) = train(tmp_path / "run", policy, token_pairs(policy), num_epochs=1)
    assert step.loss == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_are_merged_and_kept_on_request(tmp_path: Path, policy: Path, method: str) -> None:
    from peft import PeftModel

    pairs = token_pairs(policy)
    lora = {"rank": 4, "dropout": 0.1, "keep_adapter": True}
    train(tmp_path / "run", policy, pairs, method=method, lora=lora, **METHODS[method])

    merged = mean_margin(trained(tmp_path / "run"), pairs)
    assert merged > mean_margin(policy, pairs) + 1
    base = AutoModelForCausalLM.from_pretrained(policy)
    adapted = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").merge_and_unload()
    adapted.save_pretrained(tmp_path / "again")
    # The merged model is stored in bfloat16: 3 digits of each weight.
    assert mean_margin(tmp_path / "again", pairs) == pytest.approx(merged, rel=0.05)


def test_dropout_of_the_adapters_is_applied(tmp_path: Path, policy: Path) -> None:
    # TRL takes all dropout away unless it is told not to.
    pairs = token_pairs(policy)
    with_, without = (
        train(tmp_path / str(dropout), policy, pairs, lora={"rank": 4, "dropout": dropout})
        for dropout in (0.5, 0.0)
    )
    assert [step.loss for step in with_] != pytest.approx([step.loss for step in without], abs=1e-3)


def test_a_model_learns_to_end_its_answers(tmp_path: Path, policy: Path) -> None:
    # The chosen answers end; the rejected ones were cut off, so that only one side has an end.
    ended = token_pairs(policy)
    cut_off = [pair._replace(rejected_ids=pair.chosen_ids[:-1]) for pair in ended]
    train(tmp_path / "run", policy, cut_off, method="dpo")

    def ending(folder: Path) -> float:
        """Mean log-probability of the end behind the chosen answers: their margin over those."""
        return mean_margin(folder, cut_off)

    assert ending(trained(tmp_path / "run")) > ending(policy) + 2


@pytest.mark.parametrize("method", METHODS)
def test_a_number_of_steps_is_kept_to_and_spans_the_schedule(
    tmp_path: Path, policy: Path, method: str
) -> None:
    pairs = token_pairs(policy)  # 6 pairs, 3 a step: two passes and a half
    settings = METHODS[method] | {"method": method, "num_epochs": 1, "num_steps": 5}
    steps = train(tmp_path / "run", policy, pairs, warmup_share=0.2, **settings)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5]
    assert [step.epoch for step in steps] == pytest.approx([0.5, 1, 1.5, 2, 2.5])
    # One step of warm-up from 0, then down to 0 after the fifth.
    rates = [3e-3 * share for share in (0, 1, 3 / 4, 2 / 4, 1 / 4)]
    assert [step.learning_rate for step in steps] == pytest.approx(rates)
    # Two steps are a pass over all pairs, whatever their order. A prompt occurs with both answers.
    pass_tokens = sum(
        2 * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs
    )
    tokens = [step.num_tokens for step in steps if step.num_tokens is not None]
    assert sum(tokens[:2]) == sum(tokens[2:4]) == pass_tokens
    for step in steps:
        assert step.seconds is not None
        assert step.tokens_per_second is not None
        mismatched = 2 if method == "kto" else 1  # KTO runs its mismatched answers, too
        assert step.num_tokens is not None
        assert step.seconds * step.tokens_per_second == pytest.approx(
            step.num_tokens * mismatched, rel=0.3 if method == "kto" else 1e-6
        )


def test_a_training_of_a_number_of_steps_goes_on_from_a_checkpoint(
    tmp_path: Path, policy: Path
) -> None:
    settings: dict[str, Any] = {"num_epochs": 1, "num_steps": 5, "checkpoint_steps": 3}
    pairs = token_pairs(policy)
    wanted = train(tmp_path / "whole", policy, pairs, **settings)
    checkpoint = tmp_path / "whole" / "scratch" / "checkpoint-3"
    found = train(tmp_path / "resumed", policy, pairs, resume=checkpoint, **settings)
    assert [step.step for step in found] == [1, 2, 3, 4, 5]
    assert [step.seconds for step in found[:3]] == [step.seconds for step in wanted[:3]]
    # The first three are of the checkpoint; the others see the same pairs at the same rates.
    for name in ("loss", "num_tokens", "learning_rate", "epoch"):
        assert [getattr(step, name) for step in found] == pytest.approx(
            [getattr(step, name) for step in wanted], abs=1e-4
        )


def test_the_end_is_no_checkpoint(tmp_path: Path, policy: Path) -> None:
    # The model itself is saved; with it, the optimiser's state would be written for nobody.
    train(tmp_path / "run", policy, token_pairs(policy), num_epochs=1)
    assert not list((tmp_path / "run" / "scratch").glob("checkpoint-*"))
