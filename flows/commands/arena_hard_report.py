"""Arena-Hard leaderboard of the models in a file of verdicts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

from flows.commands.summary import known
from pvar.errors import InputError
from pvar.evaluation.arena_hard import (
    ArenaHardScore,
    JudgedQuestion,
    num_benchmark_questions,
    score_model,
)
from pvar.evaluation.arena_hard_style import StyleKey, style_controlled_scores
from pvar.evaluation.style import Control, StyleCounts, Version


class Scoring(NamedTuple):
    """How the verdicts are scored."""

    version: Version
    controls: tuple[Control, ...]
    styles: Mapping[StyleKey, StyleCounts]
    """Empty without controls."""
    wanted: Mapping[str, str | None] | None
    """Category of each question that should be judged; None means all questions of the version."""
    seed: int

    def num_wanted(self, judged: Sequence[JudgedQuestion], category: str | None) -> int:
        """Number of wanted questions in one category, or in all (None)."""
        if self.wanted is not None:
            return sum(category in (None, each) for each in self.wanted.values())
        found = {question.category for question in judged if question.category is not None}
        num_benchmark = num_benchmark_questions(self.version, found)
        return max(num_benchmark, len({question.question_id for question in judged}))


class ModelResult(NamedTuple):
    """One line of the leaderboard."""

    model: str
    baselines: tuple[str, ...]
    """Several only if categories have their own baselines."""
    score: ArenaHardScore
    by_category: Mapping[str, ArenaHardScore]


def parse_controls(style: str | None) -> tuple[Control, ...]:
    """The kinds of style control in a comma-separated list."""
    names = [name.strip() for name in style.split(",")] if style is not None else []
    known_names: tuple[Control, ...] = get_args(Control)
    if unknown := [name for name in names if name not in known_names]:
        known_list = ", ".join(known_names)
        raise InputError(f"--style {style}: {unknown[0]!r} is unknown; use {known_list}")
    return tuple(name for name in known_names if name in names)


def leaderboard(judged: Sequence[JudgedQuestion], scoring: Scoring) -> list[ModelResult]:
    """Results of all models, best first; models without a judged game are last."""
    categories = sorted({q.category for q in judged if q.category is not None})
    by_category = {
        category: _scores([q for q in judged if q.category == category], scoring, category)
        for category in categories
    }
    results = [
        ModelResult(
            model=model,
            baselines=tuple(sorted({q.baseline for q in judged if q.model == model})),
            score=score,
            by_category={
                category: scores[model]
                for category, scores in by_category.items()
                if model in scores
            },
        )
        for model, score in _scores(judged, scoring, None).items()
    ]
    return sorted(results, key=lambda result: (not result.score.num_games, -result.score.score))


def to_json(result: ModelResult, controls: Sequence[Control]) -> dict[str, object]:
    """The result with its stable names. ci_* is the published interval, clustered_ci_* ours."""
    return {
        "model": result.model,
        "baseline": ", ".join(result.baselines),
        **_score_to_json(result.score),
        "style": list(controls),
        "categories": [
            {"category": category, **_score_to_json(score)}
            for category, score in result.by_category.items()
        ],
    }


def print_leaderboard(results: Sequence[ModelResult]) -> None:
    """Print a table, with additional lines for the categories of each model."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "Model", "Score", "Published interval", "Over questions, 95 %", "Games", "Coverage"
    )
    for result in results:
        table.add_row(result.model, *_cells(result.score))
        for category, score in result.by_category.items():
            table.add_row(f"  {category}", *_cells(score))
    Console().print(table)


def _scores(
    judged: Sequence[JudgedQuestion], scoring: Scoring, category: str | None
) -> dict[str, ArenaHardScore]:
    num_wanted = scoring.num_wanted(judged, category)
    if scoring.controls:
        return style_controlled_scores(
            judged,
            scoring.styles,
            scoring.version,
            scoring.controls,
            num_wanted=num_wanted,
            seed=scoring.seed,
        )
    return {
        model: score_model(
            [question for question in judged if question.model == model],
            scoring.version,
            num_wanted=num_wanted,
            seed=scoring.seed,
        )
        for model in sorted({question.model for question in judged})
    }


def _score_to_json(score: ArenaHardScore) -> dict[str, object]:
    return {
        "score": known(score.score),
        "ci_lower": known(score.published.lower),
        "ci_upper": known(score.published.upper),
        "clustered_ci_lower": score.clustered.lower,
        "clustered_ci_upper": score.clustered.upper,
        "n_questions": score.num_questions,
        "n_games": score.num_games,
        "coverage": score.coverage,
    }


def _cells(score: ArenaHardScore) -> tuple[str, ...]:
    intervals = (f"{low:.2f} – {high:.2f}" for low, high in (score.published, score.clustered))
    return (f"{score.score:.2f}", *intervals, str(score.num_games), f"{100 * score.coverage:.1f} %")
