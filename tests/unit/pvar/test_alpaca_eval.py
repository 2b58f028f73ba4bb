"""AlpacaEval's raw win rates: by hand, and every published figure of the shared models."""

import math

import numpy as np
import pytest
from benchmark_data import ALPACA_EVAL_MODELS, alpaca_eval_run, needs_shared_data

from pvar.errors import InputError
from pvar.evaluation.alpaca_eval import alpaca_eval_win_rate, model_preferences


def test_win_rates_follow_their_definitions() -> None:
    # y = 1, 0, ½ and a draw in its old spelling, ½; the missing one is not judged.
    result = alpaca_eval_win_rate([2.0, 1.0, 1.5, 0.0, math.nan])

    assert result.win_rate == 50.0
    # Deviations ½, −½, 0, 0: variance (¼ + ¼) / 3 = 1/6; standard error 100 · √(1/6) / √4.
    assert result.standard_error == pytest.approx(50 * math.sqrt(1 / 6))
    assert result.discrete_win_rate == 50.0
    assert (result.num_judged, result.num_wins, result.num_losses, result.num_draws) == (4, 1, 1, 2)


def test_discrete_win_rate_forgets_how_sure_the_judge_was() -> None:
    # 1.6 and 1.9 are wins, 1.2 is a loss: 2 of 3; the mean of y is (0.6 + 0.9 + 0.2) / 3.
    result = alpaca_eval_win_rate([1.6, 1.9, 1.2])

    assert result.discrete_win_rate == pytest.approx(200 / 3)
    assert result.win_rate == pytest.approx(170 / 3)


def test_what_was_not_judged_is_missing_and_no_loss() -> None:
    """A failed judgment counted as a preference of any kind changes the rate."""
    judged = [2.0, 2.0, 1.0, math.nan, math.nan, math.nan]
    as_losses = alpaca_eval_win_rate(np.nan_to_num(judged, nan=1.0))  # the defect

    assert alpaca_eval_win_rate(judged).win_rate == pytest.approx(200 / 3)
    assert as_losses.win_rate == pytest.approx(200 / 6)


def test_nothing_judged_is_not_a_number() -> None:
    result = alpaca_eval_win_rate([math.nan])

    assert math.isnan(result.win_rate)
    assert result.num_judged == 0


@pytest.mark.parametrize("preference", [0.5, 2.1, -1.0, math.inf])
def test_a_preference_on_another_scale_is_refused(preference: float) -> None:
    with pytest.raises(InputError, match=rf"1 of 2 preferences .* first is {preference}"):
        model_preferences([1.0, preference])


@needs_shared_data
@pytest.mark.parametrize("model", ALPACA_EVAL_MODELS)
def test_published_win_rates_are_reproduced(model: str) -> None:
    run = alpaca_eval_run(model)
    result = alpaca_eval_win_rate([row["preference"] for row in run.annotations])

    published = {
        name: float(run.published[name])
        for name in run.published
        if name != "model" and run.published[name]
    }
    assert result.win_rate == pytest.approx(published["win_rate"], abs=1e-6)
    assert result.standard_error == pytest.approx(published["standard_error"], abs=1e-6)
    assert result.discrete_win_rate == pytest.approx(published["discrete_win_rate"], abs=1e-6)
    assert result.num_judged == published["n_total"]
    assert result.num_wins == published["n_wins"]
    assert result.num_losses == published["n_wins_base"]
    assert result.num_draws == published["n_draws"]
