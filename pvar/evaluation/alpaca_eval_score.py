"""AlpacaEval 2's figures of one model: raw and length-controlled win rate, from judged answers.

Used by the stage `benchmark` and by `pvar winrate`, which therefore agree. Rows are joined by
instruction before. A missing answer has length 0 in the mean length, as on the leaderboard.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.evaluation.alpaca_eval import AlpacaEvalWinRate, alpaca_eval_win_rate, model_preferences
from pvar.evaluation.length_control import (
    Calibration,
    Coefficients,
    LengthControlledWinRate,
    fit_length_control,
    length_controlled_win_rate,
)
from pvar.evaluation.paired import WinRate, paired_win_rate

LEADERBOARD_JUDGE = "weighted_alpaca_eval_gpt4_turbo"
LEADERBOARD_JUDGE_MODEL = "gpt-4-1106-preview"
LEADERBOARD_BASELINE = "gpt4_1106_preview"
NUM_LEADERBOARD_QUESTIONS = 805


class JudgedOutput(NamedTuple):
    """A judged instruction: preference on AlpacaEval's scale (NaN missing), and both lengths."""

    preference: float
    num_characters: int
    baseline_num_characters: int
    number: int
    """The instruction's number in the calibration."""


class LengthControl(NamedTuple):
    """The length-controlled win rate, and the fit behind it."""

    win_rate: LengthControlledWinRate
    coefficients: Coefficients


class AlpacaEvalScore(NamedTuple):
    """One model's figures; rates in percent."""

    raw: AlpacaEvalWinRate
    over_prompts: WinRate
    """Rates in [0, 1], with the 95 % interval over prompts."""
    mean_length: int
    """Characters of the model's answers, over all wanted instructions, rounded down."""
    coverage: float
    """Judged / wanted instructions."""
    length_control: LengthControl | None
    """None without calibration or without a judged row."""


def score_alpaca_eval(
    judged: list[JudgedOutput],
    *,
    answer_lengths: list[int],
    num_wanted: int,
    calibration: Calibration | None,
    is_baseline: bool,
    seed: int,
) -> AlpacaEvalScore:
    """Score one model.

    `answer_lengths` are the characters of the model's answers to wanted instructions, judged or
    not. The baseline's own length-controlled win rate is 50 % by definition. Raises InputError for
    a preference off the scale, and for an instruction whose difficulty is not known.
    """
    preferences = np.array([row.preference for row in judged], dtype=np.float64)
    raw = alpaca_eval_win_rate(preferences)
    return AlpacaEvalScore(
        raw=raw,
        over_prompts=paired_win_rate(model_preferences(preferences), seed=seed),
        mean_length=sum(answer_lengths) // num_wanted if num_wanted else 0,
        coverage=raw.num_judged / num_wanted if num_wanted else 0.0,
        length_control=_control_length(judged, calibration, is_baseline=is_baseline),
    )


def is_comparable(judge: str, baseline: str, *, num_judged: int, num_wanted: int) -> bool:
    """Whether a length-controlled win rate is comparable with the leaderboard.

    The difficulties and the published numbers belong to one judge, one baseline and all
    instructions.
    """
    return (
        judge == LEADERBOARD_JUDGE
        and baseline == LEADERBOARD_BASELINE
        and num_judged == num_wanted == NUM_LEADERBOARD_QUESTIONS
    )


def _control_length(
    judged: list[JudgedOutput], calibration: Calibration | None, *, is_baseline: bool
) -> LengthControl | None:
    rows = [row for row in judged if not np.isnan(row.preference)]
    if calibration is None or not rows:
        return None
    indices = np.array([row.number for row in rows], dtype=np.int64)
    if is_baseline:
        coefficients = Coefficients(0.0, 0.0, 0.0)  # 50 % by definition
    else:
        delta: NDArray[np.float64] = np.array(
            [row.baseline_num_characters - row.num_characters for row in rows], dtype=np.float64
        )
        preferences = model_preferences([row.preference for row in rows])
        coefficients = fit_length_control(preferences, delta, indices, calibration)
    difficulties = calibration.difficulties_of(indices)
    return LengthControl(length_controlled_win_rate(coefficients, difficulties), coefficients)
