"""The joined columns say what the rules for single responses say, on made-up tables."""

import math
import random
from pathlib import Path

import numpy as np
import pytest

from pvar.errors import InputError
from pvar.pairs.answers import usable_answers
from pvar.records import Message, Prompt, Response, Score
from pvar.selection_config import RewardSettings
from tasks.engine.artifact import Artifact
from tasks.stages.ingest import PROMPTS
from tasks.stages.reward_columns import RewardColumns, read_reward_columns
from tasks.stages.reward_matrix import RewardedParts, read_rewards
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES
from tests.artifacts import StageBench, opened
from tests.workflow import open_wiring

TEXTS = ("one", " one", "two\n", "three", "", " \t")
PENALTY = 0.5


def made_up(seed: int) -> tuple[list[Prompt], list[Response], list[list[Score]]]:
    """Prompts of both splits with responses of every kind, and two models' scores in any order."""
    rng = random.Random(seed)
    prompts = [
        Prompt(f"p{n}", (Message("user", f"{n}?"),), rng.choice(("train", "train", "eval")), "x")
        for n in range(12)
    ]
    names = [f"{rng.getrandbits(64):016x}" for _ in range(60)] if seed % 2 else map(str, range(60))
    responses = [
        Response(
            rng.choice(prompts).prompt_id, name, rng.randrange(4), rng.choice(TEXTS),
            rng.randrange(1, 9), rng.choice(("stop", "stop", "stop", "length", "error")),
        )
        for name in names
    ]  # fmt: skip
    models = []
    for _ in range(2):
        scores = [
            Score(each.prompt_id, each.response_id, rng.choice((None, *[rng.gauss(0, 1)] * 5)))
            for each in responses
            if rng.random() < 0.9
        ]
        rng.shuffle(scores)
        models.append(scores)
    return prompts, responses, models


def inputs_of(
    folder: Path, prompts: list[Prompt], responses: list[Response], models: list[list[Score]]
) -> dict[str, Artifact]:
    bench = StageBench(open_wiring(folder), folder)
    keys = {
        "prompts": bench.put("ingest", PROMPTS, prompts, Prompt),
        "responses": bench.put("sample", RESPONSES, responses, Response),
    }
    for model, scores in enumerate(models):
        keys[f"scores-m{model}"] = bench.put("score", SCORES, scores, Score)
    return {name: opened(bench.ports.store, each, folder / "in") for name, each in keys.items()}


@pytest.mark.parametrize("keep_truncated", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_columns_follow_the_rules_for_single_responses(
    tmp_path: Path, seed: int, keep_truncated: bool
) -> None:
    prompts, responses, models = made_up(seed)
    inputs = inputs_of(tmp_path, prompts, responses, models)
    penalty_of_cut = PENALTY if keep_truncated else 0.0
    settings = RewardSettings(keep_truncated=keep_truncated, missing_eos_penalty=penalty_of_cut)
    columns = read_reward_columns(inputs, ("m0", "m1"), settings)

    train = [prompt.prompt_id for prompt in prompts if prompt.split == "train"]
    penalty = {
        each.response_id: penalty_of_cut * (each.finish_reason == "length") for each in responses
    }
    rewards = [
        {s.response_id: s.reward - penalty[s.response_id] for s in model if s.reward is not None}
        for model in models
    ]
    common = [
        Score(each.prompt_id, each.response_id, 0.0)
        for each in responses
        if all(each.response_id in model for model in rewards)
    ]
    answers = usable_answers(responses, common, prompt_ids=train, keep_truncated=keep_truncated)
    assert columns.prompt_ids == train
    assert columns.left_out == answers.row_counts.rejected
    for row, prompt_id in enumerate(train):
        ids = [answer.response_id for answer in answers.by_prompt.get(prompt_id, ())]
        for model, given in enumerate(rewards):
            expected = [given[response_id] for response_id in ids]
            found = columns.matrix[model, row]
            assert found[: len(ids)].tolist() == expected
            assert np.isnan(found[len(ids) :]).all()
    own = [each for each in responses if each.prompt_id in train]
    assert columns.num_responses.sum() == len(own)
    assert columns.sum_tokens.sum() == sum(each.num_tokens for each in own)

    rows = read_rewards(inputs, ("m0", "m1"), settings).rows
    assert [list(each) for each in rows[:2]] == [
        [prompt for prompt in prompts if prompt.split == "train"],
        responses,
    ]
    for score in rows.combined:
        given = [model.get(score.response_id, math.nan) for model in rewards]
        expected_reward = None if math.isnan(sum(given)) else float(np.mean(given))
        assert score.reward == expected_reward
    check_parts(columns, inputs, rows)


def check_parts(columns: RewardColumns, inputs: dict[str, Artifact], rows) -> None:  # type: ignore[no-untyped-def]
    """Parts have the same rows as the whole."""
    parts = RewardedParts(columns, inputs["responses"])
    some = list(rows.prompts)[1:3]
    ids = {prompt.prompt_id for prompt in some}
    found = parts.of(some)
    assert list(found.prompts) == some
    assert found.responses == [each for each in rows.responses if each.prompt_id in ids]
    assert found.combined == [each for each in rows.combined if each.prompt_id in ids]


def test_two_responses_with_one_id_are_refused(tmp_path: Path) -> None:
    prompts, responses, models = made_up(0)
    responses.append(responses[0])
    inputs = inputs_of(tmp_path, prompts, responses, models)
    with pytest.raises(InputError, match=f"duplicate response id {responses[0].response_id} "):
        read_reward_columns(inputs, ("m0",), RewardSettings())


def test_nothing_sampled_is_nothing_to_select(tmp_path: Path) -> None:
    prompts, _, _ = made_up(0)
    columns = read_reward_columns(inputs_of(tmp_path, prompts, [], [[]]), ("m0",), RewardSettings())
    assert columns.matrix.shape == (1, len(columns.prompt_ids), 1)
    assert np.isnan(columns.matrix).all()
