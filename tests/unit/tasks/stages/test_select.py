"""Stage select on rows written by hand: what PVar is measured on, what is chosen, what is said."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from operator import attrgetter
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any, NamedTuple

import pytest

from pvar.config import SelectConfig
from pvar.records import FinishReason, Message, Pair, Prompt, Response, Score
from tasks.engine.artifact import Artifact
from tasks.engine.tables import PromptVariance
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES
from tasks.stages.select import PAIRS, SELECT, VARIANCE, SelectSpec
from tests.artifacts import StageBench
from tests.workflow import open_wiring

Reward = Callable[[float], float]


class Answer(NamedTuple):
    """An answer and its reward."""

    text: str
    reward: float | None
    finish: FinishReason = "stop"


def rewarded(*rewards: float) -> list[Answer]:
    return [Answer(f"worth {reward}", reward) for reward in rewards]


def select(
    folder: Path,
    answers: Mapping[str, Sequence[Answer]],
    order: random.Random | None = None,
    second_model: Reward | None = None,
    **settings: Any,
) -> Artifact:
    """The selection among these prompts by one reward model, or by two.

    `order` shuffles the rows of responses and of scores; the second model's rewards follow from the
    first one's.
    """
    folder.mkdir(exist_ok=True)
    bench = StageBench(open_wiring(folder), folder)
    prompts = [Prompt(name, (Message("user", name),), "train", "x") for name in sorted(answers)]
    responses, scores = [], []
    for name, them in answers.items():
        for index, (text, reward, finish) in enumerate(them):
            responses.append(Response(name, f"{name}-{index}", index, text, 3, finish))
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
    spec = SelectSpec(settings=SelectConfig.model_validate(settings), reward_models=tuple(models))
    return bench.run(SELECT, spec, inputs)


def by_definition(rewards: Sequence[float]) -> float:
    """Mean of (σ(r_i − r_j) − ½)² over ordered pairs i ≠ j."""
    squares = [(1 / (1 + math.exp(b - a)) - 0.5) ** 2 for a, b in permutations(rewards, 2)]
    return math.fsum(squares) / len(squares)


def measures(artifact: Artifact) -> dict[str, PromptVariance]:
    return {row.prompt_id: row for row in artifact.rows(VARIANCE, PromptVariance)}


def selected(artifact: Artifact) -> set[str]:
    return {name for name, row in measures(artifact).items() if row.selected}


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
    artifact = select(
        tmp_path,
        {
            "p": [*rewarded(1.0, -0.5, 2.0), *unusable],
            "q": [*rewarded(0.0, 0.3), *unusable[:1]],
            "r": rewarded(4.0),
        },
        budget={"count": 3},
    )
    rows = measures(artifact)
    # As many as there are, not as many as were wanted, and none of them a zero.
    assert {name: row.num_responses for name, row in rows.items()} == {"p": 3, "q": 2, "r": 1}
    assert rows["p"].pvar == pytest.approx(by_definition([1.0, -0.5, 2.0]))
    assert rows["q"].pvar == pytest.approx(by_definition([0.0, 0.3]))
    assert rows["r"].pvar is None
    assert selected(artifact) == {"p", "q"}
    (pair, _) = artifact.rows(PAIRS, Pair)
    assert (pair.chosen, pair.rejected) == ("worth 2.0", "worth -0.5")
    summary = artifact.manifest.summary
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
    artifact = select(tmp_path, answers, strategy=strategy)
    assert selected(artifact) == wanted
    for pair in artifact.rows(PAIRS, Pair):
        spread = spreads[pair.prompt_id]
        assert (pair.chosen_reward, pair.rejected_reward) == (spread, -spread)
        assert (pair.chosen, pair.rejected) == (f"worth {spread}", f"worth {-spread}")


def test_rows_are_joined_by_id_whatever_their_order(tmp_path: Path) -> None:
    noise = random.Random(0)
    answers = {name: rewarded(*(noise.gauss(0, 2) for _ in range(4))) for name in "abcdef"}
    straight = select(tmp_path / "straight", answers)
    shuffled = select(tmp_path / "shuffled", answers, order=noise)
    for table, record in ((VARIANCE, PromptVariance), (PAIRS, Pair)):
        assert shuffled.rows(table, record) == straight.rows(table, record)


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
    artifact = select(
        tmp_path, answers, order=noise, second_model=second_model, budget={"count": 4}
    )
    for name, row in measures(artifact).items():
        rewards = [each.reward for each in answers[name] if each.reward is not None]
        models = [rewards] if second_model is None else [rewards, list(map(second_model, rewards))]
        assert row.num_responses == len(rewards)
        assert row.pvar == pytest.approx(fmean(map(by_definition, models)))
    # The best and the worst answer of the prompt itself.
    pairs = {pair.prompt_id: (pair.chosen, pair.rejected) for pair in artifact.rows(PAIRS, Pair)}
    assert pairs == {
        name: tuple(pick(them, key=attrgetter("reward")).text for pick in (max, min))
        for name, them in answers.items()
    }


def test_a_fitted_scale_takes_the_unit_out_of_the_rewards_and_is_recorded(tmp_path: Path) -> None:
    noise = random.Random(0)
    rewards = {name: [noise.gauss(0, 1) for _ in range(4)] for name in "abcdef"}

    def measured(unit: float, **settings: Any) -> Artifact:
        answers = {name: rewarded(*(unit * r for r in them)) for name, them in rewards.items()}
        return select(tmp_path / f"{unit} {settings}", answers, **settings)

    one, large = (measured(unit, reward_scale="spread") for unit in (1.0, 200.0))
    pvar = {name: pytest.approx(row.pvar) for name, row in measures(one).items()}
    assert {name: row.pvar for name, row in measures(large).items()} == pvar
    before, after = one.manifest.summary, large.manifest.summary
    assert isinstance(before["reward_scale_m"], float)
    assert after["reward_scale_m"] == pytest.approx(200 * before["reward_scale_m"])
    assert after["saturation_share_m"] == before["saturation_share_m"]
    # Under a fixed scale nearly every preference is certain, and the summary says so. |p − ½| is
    # above 0.49 from a difference of ln 99 = 4.6 on, here 0.023 of a standard deviation.
    fixed = measured(200.0).manifest.summary
    assert fixed["reward_scale_m"] == 1.0
    assert float(fixed["saturation_share_m"] or 0) > 0.9


def test_the_standard_error_is_that_of_the_combined_variance(tmp_path: Path) -> None:
    rewards = [1.0, -0.5, 2.0, 0.3]
    artifact = select(tmp_path, {"p": rewarded(*rewards)}, second_model=lambda reward: -reward)
    row = measures(artifact)["p"]
    # Turned round, every (p − ½)² is the same, so both models and their mean have one PVar and one
    # jackknife. By the mean reward, 0 for every answer, both would be 0.
    assert row.pvar == pytest.approx(by_definition(rewards))
    left_out = [by_definition(rewards[:i] + rewards[i + 1 :]) for i in range(4)]
    # (n − 1)/n · Σ (U_i − Ū)² over the n = 4 values of PVar with one response left out.
    assert row.stderr == pytest.approx(math.sqrt(3 * pvariance(left_out)))


def test_equals_at_the_cut_are_taken_by_id_and_reported(tmp_path: Path) -> None:
    artifact = select(tmp_path, {name: rewarded(0.0, 1.0) for name in "dbca"})
    assert selected(artifact) == {"a", "b"}
    assert artifact.manifest.summary["num_tied_at_cut"] == 4
    assert artifact.manifest.summary["cut_value"] == pytest.approx(by_definition([0.0, 1.0]))
