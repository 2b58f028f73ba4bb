"""AlpacaEval 2 scores of one model, from the files of `benchmark_files` joined by instruction."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.commands.benchmark_files import Annotations, CalibrationFiles, Output
from flows.commands.summary import Figure
from pvar.errors import InputError
from pvar.evaluation.alpaca_eval import alpaca_eval_win_rate, model_preferences
from pvar.evaluation.calibration import is_published
from pvar.evaluation.length_control import (
    Coefficients,
    LengthControlledWinRate,
    fit_length_control,
    length_controlled_win_rate,
)
from pvar.evaluation.paired import paired_win_rate

LEADERBOARD_JUDGE = "weighted_alpaca_eval_gpt4_turbo"
LEADERBOARD_BASELINE = "gpt4_1106_preview"


class Run(NamedTuple):
    """The files of one evaluation."""

    annotations: Annotations
    outputs: Mapping[str, Output]
    """The model's answers, by instruction."""
    baseline: Mapping[str, Output]
    """The baseline's answers to all instructions."""
    calibration: CalibrationFiles | None


class _Controlled(NamedTuple):
    win_rate: LengthControlledWinRate
    coefficients: Coefficients


def figures(run: Run, *, judge: str, seed: int) -> list[Figure]:
    """The leaderboard's scores and the numbers behind them.

    Raises InputError if either file of answers lacks a judged instruction.
    """
    _refuse_unknown(run.annotations, run.outputs, "outputs")
    _refuse_unknown(run.annotations, run.baseline, "baseline")
    return [*_raw_figures(run, seed), *_controlled_figures(run, judge)]


def _refuse_unknown(judged: Annotations, answers: Mapping[str, Output], name: str) -> None:
    unknown = [text for text in judged.instructions if text not in answers]
    if unknown:
        raise InputError(
            f"the {name} file has no answer to {len(unknown)} of {len(judged.instructions)} judged "
            f"instructions, such as {unknown[0][:60]!r}; give files of the same evaluation"
        )


def _raw_figures(run: Run, seed: int) -> list[Figure]:
    judged = run.annotations
    raw = alpaca_eval_win_rate(judged.preferences)
    interval = paired_win_rate(model_preferences(judged.preferences), seed=seed)
    # A missing answer counts as length 0, as on the leaderboard.
    lengths = [run.outputs[text].num_characters for text in run.baseline if text in run.outputs]
    return [
        Figure("model", "Model", judged.model),
        Figure("baseline", "Baseline", judged.baseline),
        Figure("win_rate", "Win rate, %", raw.win_rate),
        Figure("standard_error", "Standard error", raw.standard_error),
        Figure("ci_lower", "95 % interval over prompts, from", 100 * interval.ci_lower),
        Figure("ci_upper", "… to", 100 * interval.ci_upper),
        Figure("discrete_win_rate", "Discrete win rate, %", raw.discrete_win_rate),
        Figure("n_total", "Judged", raw.num_judged),
        Figure("n_wins", "Wins", raw.num_wins),
        Figure("n_wins_base", "Losses", raw.num_losses),
        Figure("n_draws", "Draws", raw.num_draws),
        Figure("coverage", "Judged / wanted", raw.num_judged / len(run.baseline)),
        Figure("avg_length", "Mean length, characters", sum(lengths) // len(run.baseline)),
    ]


def _controlled_figures(run: Run, judge: str) -> list[Figure]:
    controlled = _control_length(run)
    if controlled is None or run.calibration is None:
        names = ("length_controlled_winrate", "lc_standard_error")
        return [Figure(name, f"{name} (not computed)", None) for name in names]
    comparable = judge == LEADERBOARD_JUDGE and run.annotations.baseline == LEADERBOARD_BASELINE
    win_rate, coefficients = controlled
    digests = run.calibration.difficulty_sha256, run.calibration.gamed_sha256
    return [
        Figure("length_controlled_winrate", "Length-controlled win rate, %", win_rate.win_rate),
        Figure("lc_standard_error", "Spread over instructions / √n", win_rate.standard_error),
        Figure("lc_coefficients", "Coefficients", coefficients._asdict()),
        Figure("judge", "Judge", judge),
        Figure("lc_comparable", "Comparable with the leaderboard", comparable),
        Figure("calibration_published", "Calibration as published", is_published(*digests)),
        Figure("instruction_difficulty_sha256", "Difficulty table", digests[0]),
        Figure("df_gamed_sha256", "Gamed table", digests[1]),
    ]


def _control_length(run: Run) -> _Controlled | None:
    """Length control over the judged rows, joined by instruction.

    None without calibration tables or judged rows.
    """
    judged = run.annotations
    preferences = model_preferences(judged.preferences)
    is_judged = ~np.isnan(preferences)
    if run.calibration is None or not is_judged.any():
        return None
    tables = run.calibration.tables
    texts = [text for text, keep in zip(judged.instructions, is_judged, strict=True) if keep]
    numbers = _instruction_numbers(run.baseline)
    indices = np.array([numbers[text] for text in texts], dtype=np.int64)
    delta_lengths = _lengths(run.baseline, texts) - _lengths(run.outputs, texts)
    if judged.model == judged.baseline:
        coefficients = Coefficients(0.0, 0.0, 0.0)  # 50 % by definition
    else:
        coefficients = fit_length_control(preferences[is_judged], delta_lengths, indices, tables)
    win_rate = length_controlled_win_rate(coefficients, tables.difficulties_of(indices))
    return _Controlled(win_rate, coefficients)


def _lengths(answers: Mapping[str, Output], texts: Sequence[str]) -> NDArray[np.float64]:
    return np.array([answers[text].num_characters for text in texts], dtype=np.float64)


def _instruction_numbers(baseline: Mapping[str, Output]) -> dict[str, int]:
    """The baseline's column index, or else the position in its file."""
    own = {text: output.number for text, output in baseline.items() if output.number is not None}
    if not own:
        return {text: position for position, text in enumerate(baseline)}
    if len(own) < len(baseline) or len(set(own.values())) < len(own):
        raise InputError(
            "the baseline's column index must have a different integer in every row; without that "
            "column, the file must be in the order of the evaluation set"
        )
    return own
