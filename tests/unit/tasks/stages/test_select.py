"""Stages select and pair on rows written by hand: what is measured, chosen, paired and said."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from operator import attrgetter
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any, NamedTuple

import pytest

from pvar.records import FinishReason, Message, Pair, Prompt, Response, Score
from pvar.selection_config import PairConfig, SelectConfig
from tasks.engine.artifact import Artifact
from tasks.engine.tables import MeasuredPrompt, PromptVariance
from tasks.stages.ingest import PROMPTS
from tasks.stages.pair import PAIR, PAIRS, pair_spec
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES
from tasks.stages.select import MEASURED, SELECT, VARIANCE, SelectSpec
from tests.artifacts import StageBench
from tests.workflow import open_wiring

Reward = Callable[[float], float]


class Answer(NamedTuple):
    """An answer and its reward."""

    text: str
    reward: float | None
    finish: FinishReason = "stop"
    num_tokens: int = 3


def rewarded(*rewards: float) -> list[Answer]:
    return [Answer(f"worth {reward}", reward) for reward in rewards]


class Made(NamedTuple):
    """What both stages make."""

    selection: Artifact
    pairs: Artifact


def select(
    folder: Path,
    answers: Mapping[str, Sequence[Answer]],
    order: random.Random | None = None,
    second_model: Reward | None = None,
    pair: Mapping[str, Any] | None = None,
    labels: Mapping[str, tuple[str, str]] | None = None,
    **settings: Any,
) -> Made:
    """The selection among these prompts by one reward model, or by two, and its pairs.

    `order` shuffles the rows of responses and of scores; the second model's rewards follow from the
    first one's. `labels` are the chosen and rejected answers that came with the prompts.
    """
    folder.mkdir(exist_ok=True)
    bench = StageBench(open_wiring(folder), folder)
    prompts = [
        Prompt(name, (Message("user", name),), "train", "x", *(labels or {}).get(name, ()))
        for name in sorted(answers)
    ]
    responses, scores = [], []
    for name, them in answers.items():
        for index, (text, reward, finish, num_tokens) in enumerate(them):
            responses.append(Response(name, f"{name}-{index}", index, text, num_tokens, finish))
            scores.append(Score(name, f"{name}-{index}", reward))
    if order is not None:
        order.shuffle(responses)
        order.shuffle(scores)
    inputs = {
        "prompts": bench.put("ingest", PROMPTS, prompts, Prompt),
        "responses": bench.put("sample", RESPONSES, responses, Response),
        "scores-m": bench.put("score", SCORES, scores, Score),
    }
    models = ["m"]
    if second_model is not None:
        others = [row._replace(reward=second_model(row.reward or 0.0)) for row in scores]
        inputs["scores-n"] = bench.put("score", SCORES, others, Score)
        models.append("n")
    config = SelectConfig.model_validate(settings)
    selection = bench.run(SELECT, SelectSpec(settings=config, reward_models=tuple(models)), inputs)
    pairing = PairConfig.model_validate(pair or {})
    spec = pair_spec(pairing, config.reward_settings, tuple(models))
    pairs = bench.run(PAIR, spec, inputs | {"selection": selection.keys})
    return Made(selection, pairs)


def by_definition(rewards: Sequence[float]) -> float:
    """Mean of (σ(r_i − r_j) − ½)² over ordered pairs i ≠ j."""
    squares = [(1 / (1 + math.exp(b - a)) - 0.5) ** 2 for a, b in permutations(rewards, 2)]
    return math.fsum(squares) / len(squares)


def measures(made: Made) -> dict[str, PromptVariance]:
    return {row.prompt_id: row for row in made.selection.rows(VARIANCE, PromptVariance)}


def selected(made: Made) -> set[str]:
    return {name for name, row in measures(made).items() if row.selected}


def test_variance_is_measured_on_what_can_be_trained_on_and_the_rest_is_counted(
    tmp_path: Path,
) -> None:
    unusable = [
        Answer("cut off in the mid", 9.0, "length"),
        Answer(" \n", -9.0),
        Answer("worth 1.0", 1.1),  # the text of the first one again
        Answer("no reward", None),
        Answer("", 9.0, "error"),
    ]
    made = select(
        tmp_path,
        {
            "p": [*rewarded(1.0, -0.5, 2.0), *unusable],
            "q": [*rewarded(0.0, 0.3), *unusable[:1]],
            "r": rewarded(4.0),
        },
        budget={"count": 3},
    )
    rows = measures(made)
    # As many as there are, not as many as were wanted, and none of them a zero.
    assert {name: row.num_responses for name, row in rows.items()} == {"p": 3, "q": 2, "r": 1}
    assert rows["p"].pvar == pytest.approx(by_definition([1.0, -0.5, 2.0]))
    assert rows["q"].pvar == pytest.approx(by_definition([0.0, 0.3]))
    assert rows["r"].pvar is None
    assert selected(made) == {"p", "q"}
    (pair, _) = made.pairs.rows(PAIRS, Pair)
    assert (pair.chosen, pair.rejected) == ("worth 2.0", "worth -0.5")
    summary = made.selection.manifest.summary
    assert {name: n for name, n in summary.items() if name.startswith("left_out_")} == {
        "left_out_truncated": 2,
        "left_out_empty": 1,
        "left_out_duplicate_text": 1,
        "left_out_missing_reward": 1,
        "left_out_failed": 1,
    }
    assert summary["num_without_measure"] == 1


@pytest.mark.parametrize(("strategy", "wanted"), [("top", {"b", "d"}), ("bottom", {"a", "c"})])
def test_each_strategy_selects_at_its_own_end_and_prefers_the_better_answer(
    tmp_path: Path, strategy: str, wanted: set[str]
) -> None:
    spreads = {"a": 0.1, "b": 3.0, "c": 0.5, "d": 1.0}
    answers = {name: rewarded(-spread, 0.0, spread) for name, spread in spreads.items()}
    made = select(tmp_path, answers, strategy=strategy)
    assert selected(made) == wanted
    for pair in made.pairs.rows(PAIRS, Pair):
        spread = spreads[pair.prompt_id]
        assert (pair.chosen_reward, pair.rejected_reward) == (spread, -spread)
        assert (pair.chosen, pair.rejected) == (f"worth {spread}", f"worth {-spread}")


def test_rip_is_measured_on_the_pair_that_is_trained_on(tmp_path: Path) -> None:
    def answers(best: float, *rejected: tuple[float, int]) -> list[Answer]:
        cut_off = Answer("cut off", -9.0, "length", 500)  # is not trained on
        longest = Answer("best", best, "stop", 100)
        return [longest, *(Answer(f"{n}", r, "stop", n) for r, n in rejected), cut_off]

    made = select(
        tmp_path,
        {
            "a": answers(2.0, (1.0, 8)),  # ranks of reward 7/8, of length 5/8, of gap 7/8
            "b": answers(2.0, (0.0, 9)),  # 5/8, 7/8, 5/8
            "c": answers(2.0, (-2.0, 7), (-2.0, 6), (1.9, 50)),  # 1/8; 3/8 of 6; 1/8
            "d": answers(2.0, (-1.0, 5)),  # 3/8, 1/8, 3/8
            "e": answers(2.0),  # has no pair
        },
        strategy="rip",
        budget={"count": 2},
        order=random.Random(0),
    )
    rows = made.selection.rows(MEASURED, MeasuredPrompt)
    rip = {row.prompt_id: row.value for row in rows if row.measure == "rip"}
    assert rip == pytest.approx({"a": 5 / 8, "b": 5 / 8, "c": 1 / 8, "d": 1 / 8})
    assert selected(made) == {"a", "b"}
    assert made.selection.manifest.summary["cut_value"] == pytest.approx(5 / 8)
    every_pair = select(tmp_path / "all", {"c": answers(2.0, (-2.0, 7), (-2.0, 6), (1.9, 50))})
    assert [pair.rejected for pair in every_pair.pairs.rows(PAIRS, Pair)] == ["6"]


def test_entropy_takes_what_two_models_are_undecided_or_contradict_each_other_about(
    tmp_path: Path,
) -> None:
    answers = {"a": rewarded(0.0, 0.1), "b": rewarded(-9.0, 9.0), "c": rewarded(1.0, 6.0)}
    # The second model turns round what is above 0: it agrees about b and contradicts about c.
    made = select(
        tmp_path,
        answers,
        second_model=lambda reward: min(reward, 3.0 - reward),
        strategy="entropy",
        budget={"count": 2},
    )
    assert selected(made) == {"a", "c"}


def test_rows_are_joined_by_id_whatever_their_order(tmp_path: Path) -> None:
    noise = random.Random(0)
    answers = {name: rewarded(*(noise.gauss(0, 2) for _ in range(4))) for name in "abcdef"}
    straight = select(tmp_path / "straight", answers)
    shuffled = select(tmp_path / "shuffled", answers, order=noise)
    assert measures(shuffled) == measures(straight)
    for mixed, ordered, table, record in (
        (shuffled.selection, straight.selection, MEASURED, MeasuredPrompt),
        (shuffled.pairs, straight.pairs, PAIRS, Pair),
    ):
        assert mixed.rows(table, record) == ordered.rows(table, record)


@pytest.mark.parametrize("second_model", [None, lambda reward: 3 * reward])
def test_prompts_with_different_numbers_of_responses_keep_their_own(
    tmp_path: Path, second_model: Reward | None
) -> None:
    # No number of responses is that of the run: each prompt has its own, and its rows lie anywhere.
    noise = random.Random(0)
    answers = {
        name: rewarded(*(round(noise.gauss(0, 1), 3) for _ in range(num)))
        for name, num in {"a": 2, "b": 8, "c": 5, "d": 3}.items()
    }
    made = select(tmp_path, answers, order=noise, second_model=second_model, budget={"count": 4})
    for name, row in measures(made).items():
        rewards = [each.reward for each in answers[name] if each.reward is not None]
        models = [rewards] if second_model is None else [rewards, list(map(second_model, rewards))]
        assert row.num_responses == len(rewards)
        assert row.pvar == pytest.approx(fmean(map(by_definition, models)))
    # The best and the worst answer of the prompt itself.
    pairs = {pair.prompt_id: (pair.chosen, pair.rejected) for pair in made.pairs.rows(PAIRS, Pair)}
    assert pairs == {
        name: tuple(pick(them, key=attrgetter("reward")).text for pick in (max, min))
        for name, them in answers.items()
    }


def test_a_fitted_scale_takes_the_unit_out_of_the_rewards_and_is_recorded(tmp_path: Path) -> None:
    noise = random.Random(0)
    rewards = {name: [noise.gauss(0, 1) for _ in range(4)] for name in "abcdef"}

    def measured(unit: float, **settings: Any) -> Made:
        answers = {name: rewarded(*(unit * r for r in them)) for name, them in rewards.items()}
        return select(tmp_path / f"{unit} {settings}", answers, **settings)

    one, large = (measured(unit, reward_scale="spread") for unit in (1.0, 200.0))
    pvar = {name: pytest.approx(row.pvar) for name, row in measures(one).items()}
    assert {name: row.pvar for name, row in measures(large).items()} == pvar
    before, after = one.selection.manifest.summary, large.selection.manifest.summary
    assert isinstance(before["reward_scale_m"], float)
    assert after["reward_scale_m"] == pytest.approx(200 * before["reward_scale_m"])
    assert after["saturation_share_m"] == before["saturation_share_m"]
    # Under a fixed scale nearly every preference is certain, and the summary says so. |p − ½| is
    # above 0.49 from a difference of ln 99 = 4.6 on, here 0.023 of a standard deviation.
    fixed = measured(200.0).selection.manifest.summary
    assert fixed["reward_scale_m"] == 1.0
    assert float(fixed["saturation_share_m"] or 0) > 0.9


def test_the_standard_error_is_that_of_the_combined_variance(tmp_path: Path) -> None:
    rewards = [1.0, -0.5, 2.0, 0.3]
    made = select(tmp_path, {"p": rewarded(*rewards)}, second_model=lambda reward: -reward)
    row = measures(made)["p"]
    # Turned round, every (p − ½)² is the same, so both models and their mean have one PVar and one
    # jackknife. By the mean reward, 0 for every answer, both would be 0.
    assert row.pvar == pytest.approx(by_definition(rewards))
    left_out = [by_definition(rewards[:i] + rewards[i + 1 :]) for i in range(4)]
    # (n − 1)/n · Σ (U_i − Ū)² over the n = 4 values of PVar with one response left out.
    assert row.stderr == pytest.approx(math.sqrt(3 * pvariance(left_out)))


def test_equals_at_the_cut_are_taken_by_id_and_reported(tmp_path: Path) -> None:
    made = select(tmp_path, {name: rewarded(0.0, 1.0) for name in "dbca"})
    assert selected(made) == {"a", "b"}
    assert made.selection.manifest.summary["num_tied_at_cut"] == 4
    assert made.selection.manifest.summary["cut_value"] == pytest.approx(by_definition([0.0, 1.0]))


def test_both_stages_account_for_their_own_rows(tmp_path: Path) -> None:
    answers = {
        "p": rewarded(1.0, -1.0),
        "q": rewarded(0.5, 0.4),
        "r": rewarded(0.2, 0.1),
        "s": rewarded(4.0),
    }
    made = select(
        tmp_path, answers, budget={"count": 2}, pair={"pairs_per_prompt": 2, "min_margin": 0.2}
    )
    # Of four prompts one has no PVar and one is over the budget.
    selection = made.selection.manifest.row_counts
    assert (selection.rows_in, selection.rows_out) == (4, 2)
    assert selection.rejected == {"no_measure": 1, "over_budget": 1}
    # Two pairs are wanted of each selected prompt; of two answers there is one.
    pairs = made.pairs.manifest.row_counts
    assert (pairs.rows_in, pairs.rows_out) == (4, 1)
    assert pairs.rejected == {"margin": 1, "too_few_answers": 2}
    assert made.pairs.manifest.summary == {
        "num_pairs": 1, "num_prompts": 1, "num_labelled": 0, "margin_mean": pytest.approx(2.0)
    }  # fmt: skip
    assert made.selection.manifest.summary["measure"] == "pvar"


def test_labels_that_came_with_selected_prompts_are_used_and_other_prompts_are_paired_by_reward(
    tmp_path: Path,
) -> None:
    answers = {
        "a": rewarded(2.0, -2.0),
        "b": rewarded(1.0, -1.0),
        "c": rewarded(3.0, -3.0),
        "d": rewarded(0.1, 0.0),  # the lowest PVar: over the budget, whatever its label
    }
    labels = {"a": ("a person's choice", "the other"), "b": ("same", "same"), "d": ("yes", "no")}
    settings: dict[str, Any] = {"budget": {"count": 3}, "labels": labels}
    pair = {"min_margin": 5.0, "pairs_per_prompt": 2, "own_labels": True}
    made = select(tmp_path / "own", answers, pair=pair, **settings)
    assert [(row.prompt_id, row.chosen, row.rejected) for row in made.pairs.rows(PAIRS, Pair)] == [
        ("a", "a person's choice", "the other"),
        ("c", "worth 3.0", "worth -3.0"),
    ]
    # One label of a and of b, and two pairs that c could have; its two answers are one.
    counts = made.pairs.manifest.row_counts
    assert (counts.rows_in, counts.rows_out) == (4, 2)
    assert counts.rejected == {"tie": 1, "too_few_answers": 1}
    assert made.pairs.manifest.summary["num_labelled"] == 1
    assert made.pairs.manifest.summary["margin_mean"] == pytest.approx(6.0)  # of c alone

    ignored = select(tmp_path / "sampled", answers, **settings)
    assert [row.chosen for row in ignored.pairs.rows(PAIRS, Pair)] == [
        "worth 2.0", "worth 1.0", "worth 3.0",
    ]  # fmt: skip


def test_what_a_pair_rule_does_not_look_at_is_no_part_of_it() -> None:
    rewards = SelectConfig(keep_truncated=True, reward_scale=2.0).reward_settings
    by_reward = pair_spec(PairConfig(seed=3), rewards, ("m",))
    assert by_reward.settings.seed == 0
    assert by_reward.rewards == rewards.model_copy(update={"reward_scale": 1.0})
    # Several models are combined by reward / scale, so the scale decides between their answers.
    assert pair_spec(PairConfig(), rewards, ("m", "n")).rewards == rewards
    drawn = pair_spec(PairConfig(rule="best_random", seed=3), rewards, ("m",))
    assert drawn.settings.seed == 3
    original = pair_spec(PairConfig(rule="original", seed=3), rewards, ("m",))
    assert (original.rewards, original.reward_models, original.settings.seed) == (None, (), 0)
