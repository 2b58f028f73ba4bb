"""AlpacaEval 2 scores of one model, from its files joined by instruction."""

from collections.abc import Mapping
from typing import NamedTuple

from flows.commands.benchmark_files import CalibrationFiles
from flows.commands.summary import Figure
from pvar.errors import InputError
from pvar.evaluation.alpaca_eval_files import AlpacaEvalOutput, Annotations, generator_of
from pvar.evaluation.alpaca_eval_score import (
    AlpacaEvalScore,
    JudgedOutput,
    is_comparable,
    score_alpaca_eval,
)
from pvar.evaluation.calibration import is_published


class Run(NamedTuple):
    """The files of one evaluation."""

    annotations: Annotations
    outputs: Mapping[str, AlpacaEvalOutput]
    """The model's answers, by instruction."""
    baseline: Mapping[str, AlpacaEvalOutput]
    """The baseline's answers to all instructions."""
    calibration: CalibrationFiles | None


def figures(run: Run, *, judge: str, seed: int) -> list[Figure]:
    """The leaderboard's scores and the numbers behind them.

    Raises InputError if a file of answers lacks a judged instruction or is another model's. An
    empty answer that was judged may be absent from the model's answers.
    """
    judged = run.annotations
    _refuse_other_model(run.outputs, judged.model, "outputs")
    _refuse_other_model(run.baseline, judged.baseline, "baseline")
    _refuse_unknown(judged, {*run.outputs, *judged.empty_answers}, "outputs")
    _refuse_unknown(judged, set(run.baseline), "baseline")
    score = score_alpaca_eval(
        _judged_outputs(run),
        answer_lengths=[
            len(run.outputs[text].text) for text in run.baseline if text in run.outputs
        ],
        num_wanted=len(run.baseline),
        calibration=None if run.calibration is None else run.calibration.tables,
        is_baseline=judged.model == judged.baseline,
        seed=seed,
    )
    return [*_raw_figures(judged, score), *_controlled_figures(run, score, judge)]


def _judged_outputs(run: Run) -> list[JudgedOutput]:
    numbers = _instruction_numbers(run.baseline)
    judged = run.annotations
    return [
        JudgedOutput(
            preference=preference,
            num_characters=len(run.outputs[text].text) if text in run.outputs else 0,
            baseline_num_characters=len(run.baseline[text].text),
            number=numbers[text],
        )
        for text, preference in zip(judged.instructions, judged.preferences, strict=True)
    ]


def _refuse_other_model(answers: Mapping[str, AlpacaEvalOutput], model: str, name: str) -> None:
    """Raise InputError if the answers name another model than the annotations."""
    generator = generator_of(answers, name)
    if generator is not None and generator != model:
        raise InputError(
            f"the {name} file has answers of {generator!r} (column generator), but the annotations "
            f"judge {model!r}; give the answers that were judged"
        )


def _refuse_unknown(judged: Annotations, answered: set[str], name: str) -> None:
    unknown = [text for text in judged.instructions if text not in answered]
    if unknown:
        raise InputError(
            f"the {name} file has no answer to {len(unknown)} of {len(judged.instructions)} judged "
            f"instructions, such as {unknown[0][:60]!r}; give files of the same evaluation"
        )


def _raw_figures(judged: Annotations, score: AlpacaEvalScore) -> list[Figure]:
    raw, interval = score.raw, score.over_prompts
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
        Figure("coverage", "Judged / wanted", score.coverage),
        Figure("avg_length", "Mean length, characters", score.mean_length),
    ]


def _controlled_figures(run: Run, score: AlpacaEvalScore, judge: str) -> list[Figure]:
    if score.length_control is None or run.calibration is None:
        names = ("length_controlled_winrate", "lc_standard_error")
        return [Figure(name, f"{name} (not computed)", None) for name in names]
    win_rate, coefficients = score.length_control
    digests = run.calibration.difficulty_sha256, run.calibration.gamed_sha256
    comparable = is_comparable(
        judge,
        run.annotations.baseline,
        num_judged=score.raw.num_judged,
        num_wanted=len(run.baseline),
    )
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


def _instruction_numbers(baseline: Mapping[str, AlpacaEvalOutput]) -> dict[str, int]:
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
