"""Arena-Hard's scores and files, from judged answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pvar.evaluation.arena_hard import ArenaHardScore, JudgedQuestion, outcomes, score_model
from pvar.evaluation.arena_hard_judge import parse_verdict
from pvar.evaluation.arena_hard_style import StyleKey, style_controlled_scores
from pvar.evaluation.benchmark_questions import BenchmarkQuestion
from pvar.evaluation.benchmark_scores import BenchmarkScore, QuestionResult, known_number
from pvar.evaluation.style import Control, StyleCounts, Version, count_style
from tasks.engine.tables import JudgedShowing
from tasks.stages.benchmark_inputs import JudgedInputs, JudgedModel, JudgedScores


class ArenaHardScoring(BaseModel):
    """The settings that determine Arena-Hard's scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["arena_hard"]
    version: Version
    style_control: tuple[Control, ...]
    judge: str
    """Name of the judge: the model on its server, or its kind."""
    reads_labels: bool
    """Whether the judge's replies end with a label. Otherwise its preference decides the winner."""
    seed: int


def score_and_export_arena_hard(
    benchmark: JudgedInputs, scoring: ArenaHardScoring, folder: Path
) -> JudgedScores:
    """Score all models, and write each one's files into `folder/ROLE`."""
    for model in benchmark.models:
        export_arena_hard(benchmark, model, scoring, folder / model.role)
    return JudgedScores(
        score_models_on_arena_hard(benchmark, scoring),
        [
            row
            for model in benchmark.models
            for row in arena_hard_questions(benchmark, model, scoring)
        ],
    )


def score_models_on_arena_hard(
    benchmark: JudgedInputs, scoring: ArenaHardScoring
) -> list[BenchmarkScore]:
    """For each model the score over all questions, then of each category."""
    categories = sorted({row.category for row in benchmark.questions if row.category is not None})
    groups: list[str | None] = [None, *(categories if len(categories) > 1 else ())]
    found: dict[tuple[str, str | None], BenchmarkScore] = {}
    for category in groups:
        questions = [row for row in benchmark.questions if category in (None, row.category)]
        controlled = _style_controlled(benchmark, questions, scoring)
        for model in benchmark.models:
            plain = score_model(
                judged_questions(questions, model, scoring),
                scoring.version,
                num_wanted=len(questions),
                seed=scoring.seed,
            )
            found[model.role, category] = _score(
                model, category, questions, plain, controlled.get(model.role)
            )
    return [found[model.role, category] for model in benchmark.models for category in groups]


def judged_questions(
    questions: Sequence[BenchmarkQuestion], model: JudgedModel, scoring: ArenaHardScoring
) -> list[JudgedQuestion]:
    """The labels of both games of each question that has an answer."""
    return [_judged(row, model, scoring) for row in questions if row.prompt_id in model.answers]


def _judged(
    row: BenchmarkQuestion, model: JudgedModel, scoring: ArenaHardScoring
) -> JudgedQuestion:
    labels = {
        showing.is_swapped: label_of(showing, scoring)
        for showing in model.showings.get(row.prompt_id, ())
    }
    return JudgedQuestion(
        question_id=row.question_id,
        model=model.role,
        baseline=row.baseline,
        category=row.category,
        first=labels.get(False),
        second=labels.get(True),
    )


def label_of(showing: JudgedShowing, scoring: ArenaHardScoring) -> str | None:
    """The label of one game. In the first (not swapped) the baseline is A, the model B."""
    if scoring.reads_labels:
        return (
            None if showing.evidence is None else parse_verdict(showing.evidence, scoring.version)
        )
    if showing.preference is None:
        return None
    if showing.preference == 0.5:
        return "A=B"
    return "A>B" if (showing.preference > 0.5) == showing.is_swapped else "B>A"


def _style_controlled(
    benchmark: JudgedInputs, questions: Sequence[BenchmarkQuestion], scoring: ArenaHardScoring
) -> dict[str, ArenaHardScore]:
    """Style-controlled scores by role; none if no control is asked for, or no game counts.

    Lengths are the published tokens if all answers have them, and words otherwise.
    """
    if not scoring.style_control:
        return {}
    judged = [
        row._replace(baseline=_baseline_key(row.baseline))
        for model in benchmark.models
        for row in judged_questions(questions, model, scoring)
        if outcomes(row, scoring.version)
    ]
    if not judged:
        return {}
    return style_controlled_scores(
        judged,
        _styles(benchmark, questions),
        scoring.version,
        scoring.style_control,
        num_wanted=len(questions),
        seed=scoring.seed,
    )


def _baseline_key(name: str) -> str:
    """A key of the baseline's styles that is no role's, even if a model has the baseline's name."""
    return f"the baseline {name}"


def has_published_tokens(benchmark: JudgedInputs) -> bool:
    """Whether all answers, of the models and the baseline, have their published token counts."""
    return all(row.baseline_tokens is not None for row in benchmark.questions) and all(
        model.num_tokens.keys() >= model.answers.keys() for model in benchmark.models
    )


def _styles(
    benchmark: JudgedInputs, questions: Sequence[BenchmarkQuestion]
) -> dict[StyleKey, StyleCounts]:
    is_published = has_published_tokens(benchmark)

    def style(text: str, tokens: int | None) -> StyleCounts:
        if not is_published or tokens is None:
            tokens = len(text.split())
        return count_style(text, num_tokens=tokens)

    styles = {
        (_baseline_key(row.baseline), row.question_id): style(
            row.baseline_answer, row.baseline_tokens
        )
        for row in questions
    }
    for model in benchmark.models:
        for row in questions:
            if row.prompt_id in model.answers:
                styles[model.role, row.question_id] = style(
                    model.answers[row.prompt_id], model.num_tokens.get(row.prompt_id)
                )
    return styles


def _score(
    model: JudgedModel,
    category: str | None,
    questions: Sequence[BenchmarkQuestion],
    plain: ArenaHardScore,
    controlled: ArenaHardScore | None,
) -> BenchmarkScore:
    lengths = [
        len(model.answers[row.prompt_id]) for row in questions if row.prompt_id in model.answers
    ]
    return BenchmarkScore(
        role=model.role,
        model=model.name,
        category=category,
        score=known_number(plain.score),
        standard_error=None,
        ci_lower=known_number(plain.published.lower),
        ci_upper=known_number(plain.published.upper),
        clustered_ci_lower=known_number(plain.clustered.lower),
        clustered_ci_upper=known_number(plain.clustered.upper),
        discrete_win_rate=None,
        length_controlled_win_rate=None,
        length_controlled_standard_error=None,
        style_controlled_score=controlled and known_number(controlled.score),
        style_ci_lower=controlled and known_number(controlled.published.lower),
        style_ci_upper=controlled and known_number(controlled.published.upper),
        mean_length_characters=sum(lengths) / len(lengths) if lengths else None,
        num_questions=len(questions),
        num_judged=plain.num_questions,
        coverage=plain.coverage,
    )


def arena_hard_questions(
    benchmark: JudgedInputs, model: JudgedModel, scoring: ArenaHardScoring
) -> list[QuestionResult]:
    """The model's result on each question: the weighted mean of its games that count."""
    by_id = {row.question_id: row for row in judged_questions(benchmark.questions, model, scoring)}
    return [
        _question(row, model, by_id.get(row.question_id), scoring.version)
        for row in benchmark.questions
    ]


def _question(
    row: BenchmarkQuestion, model: JudgedModel, judged: JudgedQuestion | None, version: Version
) -> QuestionResult:
    games = () if judged is None else outcomes(judged, version)
    weight = float(sum(game.weight for game in games))
    answer = model.answers.get(row.prompt_id)
    return QuestionResult(
        role=model.role,
        prompt_id=row.prompt_id,
        category=row.category,
        value=sum(game.value * game.weight for game in games) / weight if games else None,
        weight=weight,
        num_characters=None if answer is None else len(answer),
    )


def export_arena_hard(
    benchmark: JudgedInputs, model: JudgedModel, scoring: ArenaHardScoring, folder: Path
) -> None:
    """Write model_answer/NAME.jsonl and model_judgment/JUDGE/NAME.jsonl as arena-hard-auto does."""
    answered = [row for row in benchmark.questions if row.prompt_id in model.answers]
    _write_lines(
        folder / "model_answer" / f"{_file_name(model.name)}.jsonl",
        [_exported_answer(benchmark, model, row) for row in answered],
    )
    _write_lines(
        folder / "model_judgment" / _file_name(scoring.judge) / f"{_file_name(model.name)}.jsonl",
        [_exported_judgment(model, row, scoring) for row in answered],
    )


def _exported_answer(
    benchmark: JudgedInputs, model: JudgedModel, row: BenchmarkQuestion
) -> Mapping[str, object]:
    answer = model.answers[row.prompt_id]
    style = count_style(answer, num_tokens=model.num_tokens.get(row.prompt_id, 0))
    metadata: dict[str, object] = {
        "header_count": {"all": style.headers},
        "list_count": {"all": style.lists},
        "bold_count": {"all": style.bolds},
    }
    if row.prompt_id in model.num_tokens:  # of gpt-4o's tokenizer, which is not counted here
        metadata["token_len"] = style.tokens
    return {
        "uid": row.question_id,
        "question_id": row.question_id,
        "model": model.name,
        "messages": [
            {"role": "user", "content": benchmark.texts[row.prompt_id]},
            {"role": "assistant", "content": {"answer": answer}},
        ],
        "metadata": metadata,
    }


def _exported_judgment(
    model: JudgedModel, row: BenchmarkQuestion, scoring: ArenaHardScoring
) -> Mapping[str, object]:
    showings = sorted(model.showings.get(row.prompt_id, ()), key=lambda each: each.is_swapped)
    return {
        "uid": row.question_id,
        "question_id": row.question_id,
        "category": row.category,
        "judge": scoring.judge,
        "model": model.name,
        "baseline": row.baseline,
        "games": [
            {"score": label_of(each, scoring), "judgment": {"answer": each.evidence}}
            for each in showings
        ],
    }


def _write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _file_name(name: str) -> str:
    return name.replace("/", "__")
