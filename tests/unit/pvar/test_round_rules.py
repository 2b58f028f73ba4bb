"""What a round is, and what ends the rounds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.pool_variance import PoolVariance
from pvar.round_rules import (
    RoundResult,
    RoundsConfig,
    reason_to_end,
    refuse_unfit_rounds,
    round_settings,
)

CLASSIFIER = {"kind": "classifier", "name": "c", "model": "champion"}
MEASURED = PipelineConfig.model_validate({"evaluate": {"against_first": True, "divergence": True}})


def pool(mean: float | None) -> PoolVariance:
    return PoolVariance(
        num_prompts=0 if mean is None else 9,
        scales=(1.0,),
        mean=mean,
        quantiles=(),
        share_above=None,
        saturated_share=None,
    )


def ended(number: int, **figures: Any) -> RoundResult:
    nothing: dict[str, Any] = dict.fromkeys(RoundResult.model_fields)
    known = {"run": "r", "start": "m", "source": "s", "num_selected": 4, "seconds": 1.0}
    gate = {"gate_passed": True, "promoted": True, "replaced": False, "version": number}
    defaults = {"pool": pool(0.1), **gate}
    return RoundResult.model_validate(nothing | known | defaults | {"number": number} | figures)


def rule(*results: RoundResult, **rules: Any) -> str | None:
    config = RoundsConfig(**{"rounds": 9, "pipeline": MEASURED} | rules)
    end = reason_to_end(results, config)
    return None if end is None else end.rule


def sentence(*results: RoundResult, **rules: Any) -> str:
    end = reason_to_end(results, RoundsConfig(**{"rounds": 9, "pipeline": MEASURED} | rules))
    assert end is not None
    return end.sentence


def failed(number: int) -> RoundResult:
    return ended(number, gate_passed=False, promoted=False)


def test_failed_gates_end_the_rounds_only_in_a_row() -> None:
    assert rule(failed(1)) is None
    assert rule(failed(1), ended(2), failed(3)) is None
    assert rule(ended(1), failed(2), failed(3)) == "failed_gates"
    assert sentence(ended(1), failed(2), failed(3)) == (
        "no model was promoted in 2 rounds in a row (2, 3), max_failed_gates is 2"
    )
    assert rule(failed(1), max_failed_gates=1) == "failed_gates"


def test_a_version_that_a_person_declined_counts_as_failed() -> None:
    declined = ended(2, promoted=False)
    assert rule(failed(1), declined) == "failed_gates"
    rolled_back = ended(2, promoted=False, replaced=True)
    assert rule(failed(1), rolled_back) == "failed_gates"


def test_pvar_is_compared_with_the_first_round() -> None:
    rounds = [ended(1, pool=pool(0.1)), ended(2, pool=pool(0.05)), ended(3, pool=pool(0.019))]
    assert rule(*rounds[:2]) is None
    a_quarter = [ended(1, pool=pool(0.125)), ended(2, pool=pool(0.03125))]
    assert rule(*a_quarter, min_pvar_share=0.25) is None
    assert sentence(*rounds) == (
        "the mean PVar of the pool is 0.019, 19.0% of the first round's 0.1, min_pvar_share is "
        "0.2: little is left to teach"
    )
    assert rule(*rounds, min_pvar_share=0) is None


@pytest.mark.parametrize("mean", [0.015, 0.0, None])
def test_batches_differ_so_only_a_bound_that_is_set_ends_rounds_of_them(mean: float | None) -> None:
    batches = {
        "rounds": 3,
        "batches": ["a.jsonl", "b.jsonl", "c.jsonl"],
        "pipeline": {"evaluate": {"prompts": ["exam.jsonl"]}},
    }
    rounds = [ended(1, pool=pool(0.1)), ended(2, pool=pool(mean))]
    assert rule(*rounds, **batches) is None
    assert rule(*rounds, **batches, min_pvar_share=0.2) == "pvar"
    assert rule(*rounds) == "pvar"


@pytest.mark.parametrize(
    ("mean", "what"), [(None, "no prompt"), (0.0, "PVar of every prompt is 0")]
)
def test_a_pool_that_never_taught_ends_after_one_round(mean: float | None, what: str) -> None:
    assert what in sentence(ended(1, pool=pool(mean)))


def test_divergence_and_ability_are_those_of_a_promoted_model() -> None:
    assert rule(ended(1, kl_since_first=5.0), max_kl=5) is None
    assert sentence(ended(1, kl_since_first=5.21), max_kl=5) == (
        "version 1 diverges from the first model by 5.21 nats per answer, max_kl is 5"
    )
    far = ended(1, kl_since_first=9.0, ability_change_since_first=-0.5, promoted=False)
    assert rule(far, max_kl=5, max_ability_loss=0.1) is None
    lost = {"ability_change_since_first": -0.125}
    assert rule(ended(1, **lost), max_ability_loss=0.125) is None
    assert sentence(ended(1, **lost), max_ability_loss=0.1) == (
        "version 1 answers 12.5% fewer of the ability questions correctly than the first model, "
        "max_ability_loss is 0.1"
    )


def test_a_bound_on_what_was_not_measured_ends_the_rounds() -> None:
    assert "was not measured" in sentence(ended(1), max_kl=5)
    assert "was not measured" in sentence(ended(1), max_ability_loss=0.1)


def test_a_bound_that_no_loss_can_exceed_ends_the_rounds() -> None:
    """0 % that stays 0 % is no ability that was kept."""
    floor = ended(1, ability=0.0, ability_change_since_first=0.0)
    assert "the first model answers 0.0% of" in sentence(floor, max_ability_loss=0.1)
    assert rule(floor, max_ability_loss=1) is None  # every loss is allowed
    low = ended(1, ability=0.1, ability_change_since_first=-0.1)
    assert rule(low, max_ability_loss=0.15) is None
    assert "not measurable" in sentence(low, max_ability_loss=0.2)


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 12), st.integers(1, 4))
def test_rounds_end_at_the_first_of_their_bounds(
    promotions: list[bool], rounds: int, most: int
) -> None:
    """Against the rule written as a loop over the rounds."""
    num_failed, expected = 0, 0
    for expected, promoted in enumerate(promotions, start=1):
        num_failed = 0 if promoted else num_failed + 1
        if num_failed == most or expected == rounds:
            break
    else:
        expected += 1  # one more round begins
    results = [ended(n, promoted=each) for n, each in enumerate(promotions, start=1)]
    asked = RoundsConfig(rounds=rounds, max_failed_gates=most, pipeline=MEASURED)
    num_made = next(
        (n for n in range(len(results) + 1) if reason_to_end(results[:n], asked)), len(results) + 1
    )
    assert num_made == expected


def test_a_round_starts_from_the_champion_with_responses_of_its_own() -> None:
    pipeline = PipelineConfig.model_validate({"policy": "org/first", "sample": {"seed": 2**31 - 2}})
    rounds = [round_settings(RoundsConfig(pipeline=pipeline), number) for number in (1, 2, 3)]
    assert {each.policy for each in rounds} == {"champion"}
    assert {each.first_model for each in rounds} == {"org/first"}
    assert [each.sample.seed for each in rounds] == [2**31 - 2, 2**31 - 1, 0]
    assert all(PipelineConfig.model_validate(each.model_dump()) == each for each in rounds)


def test_each_batch_is_the_source_of_one_round() -> None:
    pipeline = {"evaluate": {"prompts": ["exam.jsonl"]}}
    config = RoundsConfig.model_validate(
        {"rounds": 2, "batches": ["a.jsonl", "b.jsonl"], "pipeline": pipeline}
    )
    sources = [round_settings(config, number).ingest.source for number in (1, 2)]
    assert sources == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    ("rules", "advice"),
    [
        ({"batches": ["a.jsonl"], "rounds": 1}, "set evaluate.prompts"),
        ({"batches": ["a.jsonl"], "rounds": 2}, "rounds is 2, but there are 1 batches"),
        ({"max_kl": 3}, r"set evaluate\.divergence=true and evaluate\.against_first=true"),
        ({"max_ability_loss": 0.1}, r"set evaluate\.against_first=true"),
    ],
)
def test_what_the_rules_need_is_named(rules: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        RoundsConfig.model_validate(rules)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"promote": {"mode": "never"}}, "promote.mode is never"),
        ({"evaluate": {"opponent": "org/o"}}, "evaluate.opponent is org/o"),
        ({"sample": {"engine": "dataset"}}, "sample.engine is dataset"),
        (
            {
                "reward_training": {"model": "org/r"},
                "score": {"reward_models": [CLASSIFIER]},
            },
            "reward_training is set",
        ),
    ],
)
def test_a_pipeline_that_cannot_go_on_from_itself_is_refused(
    changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError, match=key):
        refuse_unfit_rounds(PipelineConfig.model_validate(changes))
