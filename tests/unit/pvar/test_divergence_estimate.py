"""The estimate of a divergence and its interval by hand, and configurations that cannot have it."""

import pytest

from infra.presets import load_config
from pvar.errors import ConfigError
from pvar.evaluation.divergence_estimate import AnswerLogps, estimate_divergence

ROWS = [AnswerLogps("a", 4, -2.0, -3.0), AnswerLogps("b", 6, -5.0, -8.0)]


def test_the_estimate_is_the_mean_log_ratio_with_students_interval() -> None:
    # Log-ratios 1 and 3: mean 2, standard error √2/√2 = 1; t of one degree of freedom is 12.706.
    found = estimate_divergence(ROWS, confidence=0.95)
    assert found.kl == 2
    assert found.kl_lower == pytest.approx(2 - 12.7062, abs=1e-4)
    assert found.kl_upper == pytest.approx(2 + 12.7062, abs=1e-4)
    assert found.kl_per_token == pytest.approx(4 / 10)


def test_an_estimate_may_be_negative() -> None:
    assert estimate_divergence([AnswerLogps("a", 2, -3, -1)] * 2, confidence=0.95) == (
        -2,
        -2,
        -2,
        -1,
    )


def test_what_too_few_answers_leave_unknown_is_missing() -> None:
    assert estimate_divergence([], confidence=0.95) == (None, None, None, None)
    assert estimate_divergence(ROWS[:1], confidence=0.95) == (1.0, None, None, 0.25)
    assert estimate_divergence([AnswerLogps("a", 0, 0, 0)], confidence=0.95) == (
        0,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("engine", ["fake", "openai"])
def test_a_divergence_needs_an_engine_with_the_models_weights(engine: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluate.answers.engine is {engine}"):
        load_config(None, ["evaluate.divergence=true", f"evaluate.answers.engine={engine}"])
    load_config(None, ["evaluate.divergence=true", "evaluate.answers.engine=vllm"])
