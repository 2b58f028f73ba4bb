"""Style control against an independent fit of the original's rows, and on constructed games."""

import math

import numpy as np
import pytest
from benchmark_data import ARENA_HARD, arena_hard_games, needs_shared_data, read_jsonl
from scipy.optimize import minimize

from pvar.errors import InputError
from pvar.evaluation.arena_hard import JudgedQuestion, outcomes
from pvar.evaluation.arena_hard_style import style_controlled_scores
from pvar.evaluation.style import StyleCounts


def real_styles() -> dict[tuple[str, str], StyleCounts]:
    return {
        (row["model"], row["question_id"]): StyleCounts(
            row["token_len"],
            *(sum(row[f"{kind}_count"].values()) for kind in ("header", "list", "bold")),
        )
        for row in read_jsonl(ARENA_HARD / "v0.1" / "style_metadata.jsonl.gz")
    }


def original_score(version: str, columns: list[int]) -> float:
    """The original's construction, row by row: battles repeated, then duplicated in v0.1."""
    styles = real_styles()
    features, wins = [], []
    for game in arena_hard_games("official_gpt-3.5-turbo-0125"):
        if (game.model, game.question_id) not in styles:
            continue
        if (game.baseline, game.question_id) not in styles:
            continue
        a = np.array(styles[game.baseline, game.question_id], dtype=float)
        b = np.array(styles[game.model, game.question_id], dtype=float)
        if version == "v0.1":
            difference = (b - a) / (a + b + 1)
        else:
            da, db = a[1:] / (a[0] + 1), b[1:] / (b[0] + 1)
            difference = np.concatenate(
                [[(b[0] - a[0]) / (b[0] + a[0])], (db - da) / (db + da + 1)]
            )
        for outcome in outcomes(game, version):
            features += [difference] * outcome.weight
            wins += [outcome.value] * outcome.weight
    table, y = np.array(features)[:, columns], np.array(wins)
    table = (table - table.mean(axis=0)) / table.std(axis=0, ddof=0 if version == "v0.1" else 1)
    scale = math.log(10) if version == "v0.1" else 1.0

    def loss(parameters: np.ndarray) -> float:
        logits = scale * (parameters[0] - parameters[1]) + table @ parameters[2:]
        cross_entropy = np.sum(np.logaddexp(0, logits) - y * logits)
        # v0.1: every battle twice, and scikit-learn's default penalty ½ ‖·‖² with C = 1.
        if version == "v0.1":
            return 2 * cross_entropy + 0.5 * np.sum(parameters**2)
        return cross_entropy + 1e-6 * parameters[0] ** 2  # the baseline's constant is free

    fitted = minimize(loss, np.zeros(2 + len(columns)), method="BFGS", options={"gtol": 1e-4}).x
    return 100 / (1 + math.exp(-scale * (fitted[0] - fitted[1])))


@needs_shared_data
@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
@pytest.mark.parametrize(
    ("controls", "columns"),
    [(["length"], [0]), (["markdown"], [1, 2, 3]), (["length", "markdown"], [0, 1, 2, 3])],
)
def test_scores_agree_with_the_originals_construction(
    version: str, controls: list[str], columns: list[int]
) -> None:
    games = arena_hard_games("official_gpt-3.5-turbo-0125")

    result = style_controlled_scores(
        games, real_styles(), version, controls, num_wanted=500, seed=0
    )["gpt-3.5-turbo-0125"]

    assert result.score == pytest.approx(original_score(version, columns), abs=0.01)
    # 497 questions have metadata on both sides.
    assert (result.num_questions, result.num_games, result.coverage) == (497, 994, 0.994)
    assert result.published.lower < result.score < result.published.upper
    assert result.clustered.lower < result.score < result.clustered.upper


def games_won_by_length(
    num_questions: int,
) -> tuple[list[JudgedQuestion], dict[tuple[str, str], StyleCounts]]:
    """Questions on which the longer answer wins four games of five, whoever wrote it."""
    rng = np.random.default_rng(0)
    games = []
    styles = {}
    for number in range(num_questions):
        question_id = f"q{number}"
        model_is_longer = rng.random() < 0.7
        styles["model", question_id] = StyleCounts(300 if model_is_longer else 100, 0, 0, 0)
        styles["base", question_id] = StyleCounts(100 if model_is_longer else 300, 0, 0, 0)
        wins = [(rng.random() < 0.8) == model_is_longer for _ in range(2)]
        games.append(
            JudgedQuestion(
                question_id,
                "model",
                "base",
                None,
                "B>A" if wins[0] else "A>B",
                "A>B" if wins[1] else "B>A",
            )
        )
    return games, styles


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_each_control_takes_its_own_features(version: str) -> None:
    """The original's "length" alone slices away a model's column and keeps all features."""
    games, styles = games_won_by_length(400)

    scores = {
        control: style_controlled_scores(games, styles, version, [control], num_wanted=400, seed=0)[
            "model"
        ].score
        for control in ("length", "markdown")
    }

    # Raw: 0.7 · 0.8 + 0.3 · 0.2 = 62 %. No answer has markdown, so that control changes nothing.
    # Length is standardised around its mean, which favours the model: at mean length difference,
    # z = 0 lies at 0.4 of the way from "equal" to "longer": σ(0.4 · log 4) = 63.5 %.
    raw = 100 * np.mean([o.value for game in games for o in outcomes(game, version)])
    assert scores["markdown"] == pytest.approx(raw, abs=0.1)
    assert scores["length"] == pytest.approx(63.5, abs=3)


def test_all_models_share_the_style_coefficients() -> None:
    """A model with few games borrows what length is worth from one with many."""
    games, styles = games_won_by_length(400)
    few = [game._replace(model="other") for game in games[:20]]
    styles |= {("other", q): counts for (model, q), counts in styles.items() if model == "model"}

    result = style_controlled_scores(
        games + few, styles, "v2.0", ["length"], num_wanted=400, seed=0
    )

    assert set(result) == {"model", "other"}
    assert result["other"].num_questions == 20
    width = {name: each.clustered.upper - each.clustered.lower for name, each in result.items()}
    assert width["other"] > 2 * width["model"]


def test_resamples_depend_on_the_seed_alone() -> None:
    games, styles = games_won_by_length(50)

    def run(seed: int) -> object:
        return style_controlled_scores(games, styles, "v0.1", ["length"], num_wanted=50, seed=seed)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_model_without_style_counts_is_refused_by_name() -> None:
    games, styles = games_won_by_length(5)
    other = games[0]._replace(model="unknown")

    with pytest.raises(InputError, match=r"no judged answer of unknown has style counts"):
        style_controlled_scores([*games, other], styles, "v0.1", ["length"], num_wanted=5, seed=0)


def test_v01_has_one_baseline() -> None:
    games, styles = games_won_by_length(5)
    other = games[0]._replace(baseline="second")

    with pytest.raises(InputError, match=r"one baseline, but the games have base, second"):
        style_controlled_scores([*games, other], styles, "v0.1", ["length"], num_wanted=5, seed=0)
