"""AlpacaEval 2's scores and files, from judged answers."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import Summary
from pvar.benchmark_config import LengthCalibration
from pvar.evaluation.alpaca_eval_score import (
    LEADERBOARD_JUDGE,
    JudgedOutput,
    is_comparable,
    score_alpaca_eval,
)
from pvar.evaluation.benchmark_questions import BenchmarkQuestion
from pvar.evaluation.benchmark_scores import BenchmarkScore, QuestionResult, known_number
from pvar.evaluation.calibration import is_published, parse_calibration
from pvar.evaluation.length_control import Calibration
from pvar.ports import Ports
from tasks.engine.tables import JudgedShowing
from tasks.stages.benchmark_inputs import JudgedInputs, JudgedModel, JudgedScores

_ONE_SHOWING = 1


class AlpacaEvalScoring(BaseModel):
    """The settings that determine AlpacaEval's scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["alpaca_eval"]
    calibration: LengthCalibration | None
    judge: str
    """Name of the judge: the model on its server, or its kind."""
    has_leaderboard_judge: bool
    """Whether the judge is the leaderboard's model, asked by a template that the user gave."""
    seed: int


class CalibrationTables(NamedTuple):
    """The tables of the length control."""

    tables: Calibration
    is_published: bool
    """Whether they are the ones that the public scorer downloads."""


def score_and_export_alpaca_eval(
    benchmark: JudgedInputs, scoring: AlpacaEvalScoring, ports: Ports, folder: Path
) -> JudgedScores:
    """Score all models, and write each one's files into `folder/ROLE`."""
    tables = read_tables(scoring.calibration, ports)
    scores = [
        score
        for model in benchmark.models
        for score in score_model_on_alpaca_eval(benchmark, model, tables, seed=scoring.seed)
    ]
    for model in benchmark.models:
        export_alpaca_eval(benchmark, model, scoring.judge, folder / model.role)
    return JudgedScores(
        scores,
        [row for model in benchmark.models for row in alpaca_eval_questions(benchmark, model)],
        alpaca_eval_figures(benchmark, scores, scoring, tables),
    )


def read_tables(calibration: LengthCalibration | None, ports: Ports) -> CalibrationTables | None:
    """Read both CSV files; None without calibration."""
    if calibration is None:
        return None
    difficulty, gamed = (
        ports.source_file(reference).read_bytes()
        for reference in (calibration.instruction_difficulty, calibration.df_gamed)
    )
    digests = (hashlib.sha256(each).hexdigest() for each in (difficulty, gamed))
    return CalibrationTables(
        parse_calibration(difficulty, gamed),
        is_published(*digests),
    )


def score_model_on_alpaca_eval(
    benchmark: JudgedInputs,
    model: JudgedModel,
    calibration: CalibrationTables | None,
    *,
    seed: int,
) -> list[BenchmarkScore]:
    """The score over all questions first, then the win rate of each data set."""
    questions = benchmark.questions
    categories = sorted({row.category for row in questions if row.category is not None})
    groups: list[str | None] = [None, *(categories if len(categories) > 1 else ())]
    return [
        _score(
            [row for row in questions if category in (None, row.category)],
            model,
            None if category else calibration,
            category,
            seed=seed,
        )
        for category in groups
    ]


def _score(
    questions: Sequence[BenchmarkQuestion],
    model: JudgedModel,
    calibration: CalibrationTables | None,
    category: str | None,
    *,
    seed: int,
) -> BenchmarkScore:
    score = score_alpaca_eval(
        [_judged(row, model) for row in questions if row.prompt_id in model.answers],
        answer_lengths=[
            len(model.answers[row.prompt_id]) for row in questions if row.prompt_id in model.answers
        ],
        num_wanted=len(questions),
        calibration=None if calibration is None else calibration.tables,
        is_baseline=all(row.baseline == model.name for row in questions),
        seed=seed,
    )
    controlled = None if score.length_control is None else score.length_control.win_rate
    lower, upper = 100 * score.over_prompts.ci_lower, 100 * score.over_prompts.ci_upper
    return BenchmarkScore(
        role=model.role,
        model=model.name,
        category=category,
        score=known_number(score.raw.win_rate),
        standard_error=known_number(score.raw.standard_error),
        ci_lower=lower,
        ci_upper=upper,
        clustered_ci_lower=lower,
        clustered_ci_upper=upper,
        discrete_win_rate=known_number(score.raw.discrete_win_rate),
        length_controlled_win_rate=controlled and known_number(controlled.win_rate),
        length_controlled_standard_error=controlled and known_number(controlled.standard_error),
        style_controlled_score=None,
        style_ci_lower=None,
        style_ci_upper=None,
        mean_length_characters=float(score.mean_length),
        num_questions=len(questions),
        num_judged=score.raw.num_judged,
        coverage=score.coverage,
    )


def _judged(row: BenchmarkQuestion, model: JudgedModel) -> JudgedOutput:
    preference = _preference(model.showings.get(row.prompt_id, ()))
    return JudgedOutput(
        preference=math.nan if preference is None else 1 + preference,
        num_characters=len(model.answers[row.prompt_id]),
        baseline_num_characters=len(row.baseline_answer),
        number=row.number,
    )


def _preference(showings: Sequence[JudgedShowing]) -> float | None:
    return showings[0].preference if len(showings) == _ONE_SHOWING else None


def alpaca_eval_questions(benchmark: JudgedInputs, model: JudgedModel) -> list[QuestionResult]:
    """The model's result on each question."""
    return [
        QuestionResult(
            role=model.role,
            prompt_id=row.prompt_id,
            category=row.category,
            value=_preference(model.showings.get(row.prompt_id, ())),
            weight=1.0,
            num_characters=_length(model, row.prompt_id),
        )
        for row in benchmark.questions
    ]


def _length(model: JudgedModel, prompt_id: str) -> int | None:
    answer = model.answers.get(prompt_id)
    return None if answer is None else len(answer)


def alpaca_eval_figures(
    benchmark: JudgedInputs,
    scores: Sequence[BenchmarkScore],
    scoring: AlpacaEvalScoring,
    tables: CalibrationTables | None,
) -> Summary:
    """Whether each length-controlled win rate is comparable with the leaderboard."""
    if tables is None:
        return {}
    (baseline,) = {row.baseline for row in benchmark.questions}
    judge = LEADERBOARD_JUDGE if scoring.has_leaderboard_judge else scoring.judge
    return {
        "calibration_published": tables.is_published,
        **{
            f"{score.role}_lc_comparable": scoring.has_leaderboard_judge
            and is_comparable(
                judge, baseline, num_judged=score.num_judged, num_wanted=score.num_questions
            )
            for score in scores
            if score.category is None
        },
    }


def export_alpaca_eval(
    benchmark: JudgedInputs, model: JudgedModel, judge: str, folder: Path
) -> None:
    """Write model_outputs.json and annotations.json, as alpaca_eval writes them."""
    answered = [row for row in benchmark.questions if row.prompt_id in model.answers]
    _write_json(
        folder / "model_outputs.json",
        [
            {
                "dataset": row.category,
                "instruction": benchmark.texts[row.prompt_id],
                "output": model.answers[row.prompt_id],
                "generator": model.name,
            }
            for row in answered
        ],
    )
    _write_json(
        folder / "annotations.json", [_annotation(benchmark, model, judge, row) for row in answered]
    )


def _annotation(
    benchmark: JudgedInputs, model: JudgedModel, judge: str, row: BenchmarkQuestion
) -> Mapping[str, object]:
    showings = model.showings.get(row.prompt_id, ())
    preference = _preference(showings)
    return {
        "instruction": benchmark.texts[row.prompt_id],
        "output_1": row.baseline_answer,
        "generator_1": row.baseline,
        "dataset": row.category,
        "output_2": model.answers[row.prompt_id],
        "generator_2": model.name,
        "annotator": judge,
        "preference": None if preference is None else 1 + preference,
        "raw_completion": showings[0].evidence if showings else None,
    }


def _write_json(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
