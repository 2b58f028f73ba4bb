"""Length control: published fits and scores, and the variants that are known to be wrong."""

import math

import numpy as np
import pytest
from benchmark_data import (
    ALPACA_EVAL,
    ALPACA_EVAL_MODELS,
    AlpacaEvalRun,
    alpaca_eval_run,
    calibration,
    needs_shared_data,
    read_csv,
)

from pvar.errors import InputError
from pvar.evaluation.length_control import (
    Calibration,
    Coefficients,
    fit_length_control,
    length_controlled_win_rate,
)


def refit(run: AlpacaEvalRun, tables: Calibration) -> float:
    coefficients = fit_length_control(run.preferences, run.delta_lengths, run.indices, tables)
    return length_controlled_win_rate(coefficients, tables.difficulties_of(run.indices)).win_rate


def rows(run: AlpacaEvalRun, chosen: np.ndarray) -> AlpacaEvalRun:
    return run._replace(
        preferences=run.preferences[chosen],
        delta_lengths=run.delta_lengths[chosen],
        indices=run.indices[chosen],
    )


def test_win_rate_at_equal_length_is_the_mean_prediction() -> None:
    # c = 0 and b = 1 on difficulties ±log 3: σ = 3/4 and 1/4.
    result = length_controlled_win_rate(
        Coefficients(length=-1.0, difficulty=1.0, model=0.0), np.array([math.log(3), -math.log(3)])
    )

    assert result.win_rate == pytest.approx(50.0)
    # Spread of 75 and 25 with ddof 1: 50/√2; over √2 instructions: 25.
    assert result.standard_error == pytest.approx(25.0)


@needs_shared_data
@pytest.mark.parametrize("model", ALPACA_EVAL_MODELS)
def test_published_score_follows_from_the_published_coefficients(model: str) -> None:
    published = alpaca_eval_run(model).published
    coefficients = Coefficients(
        length=float(published["coef_tanh_std_delta_len"]),
        difficulty=float(published["coef_instruction_difficulty"]),
        model=float(published["coef_not_gamed_baseline"]),
    )

    result = length_controlled_win_rate(coefficients, calibration().difficulties)

    # NullModel's published coefficients and score disagree upstream.
    tolerance = 0.134 if model == "NullModel" else 0.001
    expected = float(published["length_controlled_winrate"])
    assert result.win_rate == pytest.approx(expected, abs=tolerance)
    if published["lc_standard_error"]:
        assert result.standard_error == pytest.approx(
            float(published["lc_standard_error"]), abs=0.001
        )


@needs_shared_data
@pytest.mark.parametrize("model", ALPACA_EVAL_MODELS)
def test_refit_is_within_a_tenth_of_the_published_score(model: str) -> None:
    run = alpaca_eval_run(model)

    published = float(run.published["length_controlled_winrate"])
    assert refit(run, calibration()) == pytest.approx(published, abs=0.10)


@needs_shared_data
@pytest.mark.parametrize("model", ALPACA_EVAL_MODELS)
def test_refit_agrees_with_the_public_package_on_the_same_tables(model: str) -> None:
    reference = next(
        row
        for row in read_csv(ALPACA_EVAL / "calibration" / "reference_package.csv")
        if row["model"] == model
    )

    expected = float(reference["lc_winrate_alpaca_eval_0.6.6"])
    assert refit(alpaca_eval_run(model), calibration()) == pytest.approx(expected, abs=0.01)


@needs_shared_data
def test_order_of_the_rows_does_not_change_the_score() -> None:
    """Difficulty by row position, which the public scorer uses, does."""
    run, tables = alpaca_eval_run("OpenHermes-2.5-Mistral-7B"), calibration()
    shuffled = rows(run, np.random.default_rng(0).permutation(run.indices.size))
    by_position = shuffled._replace(indices=np.arange(run.indices.size))  # the defect

    assert refit(shuffled, tables) == pytest.approx(refit(run, tables), abs=1e-9)
    assert abs(refit(by_position, tables) - refit(run, tables)) > 0.5


@needs_shared_data
def test_a_subset_is_looked_up_by_instruction() -> None:
    """For a file with missing rows: the same rows give the same score in any order."""
    run, tables = alpaca_eval_run("OpenHermes-2.5-Mistral-7B"), calibration()
    kept = np.sort(np.random.default_rng(1).choice(run.indices.size, 400, replace=False))
    subset = rows(run, kept)
    by_position = subset._replace(indices=np.arange(kept.size))  # the defect

    assert refit(rows(run, kept[::-1]), tables) == pytest.approx(refit(subset, tables), abs=1e-9)
    # The full file's difficulties apply: the predictions are those of exactly these instructions.
    assert abs(refit(subset, tables) - refit(run, tables)) < 3
    assert abs(refit(by_position, tables) - refit(subset, tables)) > 0.5


@needs_shared_data
@pytest.mark.parametrize("variant", ["binarised", "no_gamed_rows", "no_difficulty", "centred"])
def test_known_wrong_variants_miss_the_published_scores(variant: str) -> None:
    """The tolerance of a tenth separates the definition from its near misses."""
    tables = calibration()
    errors = []
    for model in ALPACA_EVAL_MODELS:
        run = alpaca_eval_run(model)
        if variant == "binarised":
            wrong, wrong_tables = run._replace(preferences=np.round(run.preferences)), tables
        elif variant == "no_gamed_rows":
            wrong, wrong_tables = (
                run,
                tables._replace(
                    gamed_preferences=tables.gamed_preferences[:0],
                    gamed_std_delta_lengths=tables.gamed_std_delta_lengths[:0],
                    gamed_indices=tables.gamed_indices[:0],
                    gamed_difficulties=tables.gamed_difficulties[:0],
                ),
            )
        elif variant == "no_difficulty":
            wrong, wrong_tables = (
                run,
                tables._replace(
                    difficulties=0 * tables.difficulties,
                    gamed_difficulties=0 * tables.gamed_difficulties,
                ),
            )
        else:
            centred = run.delta_lengths - run.delta_lengths.mean()
            wrong, wrong_tables = run._replace(delta_lengths=centred), tables
        published = float(run.published["length_controlled_winrate"])
        errors.append(abs(refit(wrong, wrong_tables) - published))

    assert np.median(errors) > 0.3


def synthetic(num_instructions: int) -> tuple[Calibration, np.random.Generator]:
    rng = np.random.default_rng(3)
    difficulties = rng.normal(size=num_instructions)
    lengths = rng.normal(size=num_instructions)
    return Calibration(
        difficulties=difficulties,
        gamed_preferences=1 / (1 + np.exp(1.5 * np.tanh(lengths) - 0.7 * difficulties)),
        gamed_std_delta_lengths=lengths,
        gamed_indices=np.arange(num_instructions),
        gamed_difficulties=difficulties,
    ), rng


def test_known_coefficients_are_recovered() -> None:
    tables, rng = synthetic(3000)
    delta = rng.normal(-200, 500, size=3000)
    logits = -1.5 * np.tanh(delta / delta.std(ddof=1)) + 0.7 * tables.difficulties + 0.4

    fitted = fit_length_control(1 / (1 + np.exp(-logits)), delta, np.arange(3000), tables)

    # Labels are exact probabilities; what is left is the small penalty's shrinkage.
    assert fitted == pytest.approx((-1.5, 0.7, 0.4), abs=0.01)


@pytest.mark.parametrize("preference", [0.0, 1.0])
def test_a_model_that_always_wins_or_loses_gets_a_finite_score(preference: float) -> None:
    tables, rng = synthetic(50)
    fitted = fit_length_control(np.full(50, preference), rng.normal(size=50), np.arange(50), tables)

    win_rate = length_controlled_win_rate(fitted, tables.difficulties).win_rate
    assert abs(win_rate - 100 * preference) < 2
    assert np.isfinite(fitted).all()


def test_answers_of_one_length_leave_nothing_to_control() -> None:
    tables, _ = synthetic(50)
    same = fit_length_control(np.full(50, 0.7), np.full(50, 300.0), np.arange(50), tables)
    none = fit_length_control(np.full(50, 0.7), np.zeros(50), np.arange(50), tables)

    assert same == none


@pytest.mark.parametrize("index", [-1, 50, 7])
def test_an_instruction_without_difficulty_is_refused(index: int) -> None:
    tables, _ = synthetic(50)
    tables.difficulties[7] = np.nan

    with pytest.raises(InputError, match=rf"1 of 2 instructions, such as number {index}"):
        fit_length_control(np.array([0.5, 0.5]), np.zeros(2), np.array([3, index]), tables)
