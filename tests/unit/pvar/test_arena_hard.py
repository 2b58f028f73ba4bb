"""Arena-Hard's scores: published boards, and the rules of both versions by hand."""

import math

import numpy as np
import pytest
from benchmark_data import ARENA_HARD, arena_hard_games, needs_shared_data, read_csv, read_jsonl

from pvar.evaluation.arena_hard import (
    JudgedQuestion,
    num_benchmark_questions,
    outcomes,
    published_interval,
    score_model,
)

BATTLES = (
    ("official_gpt-3.5-turbo-0125", "gpt-3.5-turbo-0125"),
    ("fork_20240815", "llama3_1_8b"),
    ("fork_20240815", "llama3_1_8b_guided"),
    ("fork_20240815", "llama3_70b"),
    ("fork_20240815", "mistral_large_2_guided"),
    ("fork_20240815", "mistral_nemo"),
    ("fork_20240815", "mistral_nemo_fp8"),
    ("fork_20240815", "mistral_nemo_fp8_guided"),
    ("fork_20240815", "mistral_nemo_guided"),
)


def question(first: str | None, second: str | None, question_id: str = "q") -> JudgedQuestion:
    return JudgedQuestion(question_id, "model", "baseline", None, first, second)


@needs_shared_data
@pytest.mark.parametrize(("battles", "model"), BATTLES)
def test_published_scores_and_intervals_are_reproduced(battles: str, model: str) -> None:
    games = [game for game in arena_hard_games(battles) if game.model == model]
    published = next(
        row
        for row in read_csv(ARENA_HARD / "v0.1" / "expected.csv")
        if (row["set"], row["model"]) == (battles, model)
    )

    result = score_model(games, "v0.1", num_wanted=500, seed=0)

    assert result.score == pytest.approx(float(published["score"]), abs=0.005)
    assert result.score == pytest.approx(float(published["score_recomputed"]), abs=1e-3)
    assert result.published.lower == pytest.approx(float(published["rating_q025"]), abs=1.0)
    assert result.published.upper == pytest.approx(float(published["rating_q975"]), abs=1.0)
    # Rows resampled as if they were independent claim far too much.
    published_width = result.published.upper - result.published.lower
    assert result.clustered.upper - result.clustered.lower > 1.5 * published_width
    assert result.clustered.lower < result.score < result.clustered.upper


@needs_shared_data
@pytest.mark.parametrize("battles", ["official_gpt-3.5-turbo-0125", "fork_20240815"])
def test_verdicts_make_the_published_battle_rows(battles: str) -> None:
    """Independent of the score: the rows that the original made from the same games."""
    winners = {1.0: "model_b", 0.5: "tie", 0.0: "model_a"}
    ours = sorted(
        (game.question_id, game.model, winners[outcome.value])
        for game in arena_hard_games(battles)
        for outcome in outcomes(game, "v0.1")
        for _ in range(outcome.weight)
    )
    rows = read_jsonl(ARENA_HARD / "v0.1" / "battles" / f"{battles}.jsonl.gz")

    assert ours == sorted((row["question_id"], row["model_b"], row["winner"]) for row in rows)


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_a_big_win_counts_three_times_and_the_second_game_is_swapped(version: str) -> None:
    # Game 1, model is B: B>>A is three wins. Game 2, model is A: B>A is one loss. Then one tie
    # and one loss: (3 + ½) / (3 + 1 + 1 + 1).
    games = [question("B>>A", "B>A", "1"), question("A=B", "B>A", "2")]

    result = score_model(games, version, num_wanted=2, seed=0)

    assert result.score == pytest.approx(100 * 3.5 / 6)
    assert (result.num_questions, result.num_games, result.coverage) == (2, 4, 1.0)


def test_a_missing_verdict_costs_a_game_in_v01_and_the_question_in_v20() -> None:
    games = [question("B>A", "A>B", "1"), question(None, "B>A", "2")]

    v01 = score_model(games, "v0.1", num_wanted=2, seed=0)
    v20 = score_model(games, "v2.0", num_wanted=2, seed=0)

    assert v01.score == pytest.approx(200 / 3)
    assert (v01.num_questions, v01.num_games, v01.coverage) == (2, 3, 0.75)
    assert v20.score == 100
    assert (v20.num_questions, v20.num_games, v20.coverage) == (1, 2, 0.5)


def test_a_failed_game_is_neither_a_tie_nor_a_loss() -> None:
    """With failures counted as ties the score would be (1 + ½) / 2."""
    result = score_model([question("B>A", None)], "v0.1", num_wanted=1, seed=0)

    assert result.score == 100
    assert result.coverage == 0.5


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_a_label_that_no_game_can_have_is_no_verdict(version: str) -> None:
    result = score_model([question("A>>A", "A>B")], version, num_wanted=1, seed=0)

    assert result.num_games == (1 if version == "v0.1" else 0)


def test_mirrored_labels_are_verdicts_in_v20_only() -> None:
    # A<B in game 1 is a win of the model; B<<A in game 2 is a big one.
    game = question("A<B", "B<<A")

    assert score_model([game], "v2.0", num_wanted=1, seed=0).score == 100
    assert [(each.value, each.weight) for each in outcomes(game, "v2.0")] == [(1.0, 1), (1.0, 3)]
    assert outcomes(game, "v0.1") == ()


def test_nothing_judged_has_no_score_and_no_coverage() -> None:
    result = score_model([question(None, None)], "v0.1", num_wanted=1, seed=0)

    assert math.isnan(result.score)
    assert result.clustered == (0.0, 100.0)
    assert result.coverage == 0


def test_winning_every_game_is_not_certainty() -> None:
    games = [question("B>A", "A>B", str(number)) for number in range(10)]
    result = score_model(games, "v0.1", num_wanted=10, seed=0)

    assert result.published == (100, 100)  # as published
    # Over ten prompts: 0.025^(1/10) = 0.6915
    assert result.clustered == pytest.approx((69.15, 100), abs=0.01)


def test_v20_quotes_a_ninety_percent_interval() -> None:
    games = [question("B>A", "B>A", str(number)) for number in range(200)]
    v01 = published_interval([o for g in games for o in outcomes(g, "v0.1")], "v0.1", seed=0)
    v20 = published_interval([o for g in games for o in outcomes(g, "v2.0")], "v2.0", seed=0)

    # 400 rows, half of them wins: 50 ± 1.960 · 2.5 and 50 ± 1.645 · 2.5.
    assert v01 == pytest.approx((45.1, 54.9), abs=0.3)
    assert v20 == pytest.approx((45.9, 54.1), abs=0.3)


def test_only_the_clustered_interval_covers_the_truth_as_often_as_it_says() -> None:
    """By simulation: two verdicts on one question agree more often than not."""
    rng = np.random.default_rng(0)
    labels = np.array(["A>>B", "A>B", "A=B", "B>A", "B>>A"])
    swapped = dict(zip(labels, labels[::-1], strict=True))
    covered: dict[str, list[bool]] = {"published": [], "clustered": []}
    for _ in range(150):
        drawn = rng.choice(labels, size=100)  # the model's quality on each question
        games = [
            question(label, swapped[label] if rng.random() < 0.7 else rng.choice(labels), str(i))
            for i, label in enumerate(drawn)
        ]
        # All labels are equally likely in both games, so the true score is 50.
        result = score_model(games, "v0.1", num_wanted=100, seed=0)
        covered["published"].append(result.published.lower <= 50 <= result.published.upper)
        covered["clustered"].append(result.clustered.lower <= 50 <= result.clustered.upper)

    # Binomial standard error: √(0.95 · 0.05 / 150) = 0.018.
    assert np.mean(covered["clustered"]) > 0.90
    assert np.mean(covered["published"]) < 0.80


@pytest.mark.parametrize(
    ("version", "categories", "num_questions"),
    [
        ("v0.1", (), 500),
        ("v2.0", (), 750),
        ("v2.0", ("hard_prompt",), 500),
        ("v2.0", ("hard_prompt", "creative_writing"), 750),
        ("v2.0", ("our own",), 750),
    ],
)
def test_the_wanted_number_is_the_benchmarks_and_not_the_files(
    version: str, categories: tuple[str, ...], num_questions: int
) -> None:
    assert num_benchmark_questions(version, categories) == num_questions
