"""The second round of sampling over a first one written by hand: what is asked and counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

import pytest

from pvar.combine import CombinationRule
from pvar.ports import Rejection, SampleRequest
from pvar.records import Message, Prompt, Response, Score
from pvar.row_counts import RowCounts
from pvar.sampler_config import SamplerSettings
from pvar.selection_config import RewardSettings
from tasks.engine.artifact import Artifact
from tasks.engine.tables import RejectedRow, write_table
from tasks.stages.adaptive_sample import ADAPTIVE_SAMPLE, AdaptiveSampleSpec
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import REJECTED, RESPONSES
from tasks.stages.score import SCORES
from tests.artifacts import StageBench, put_artifact
from tests.workflow import open_wiring

FIRST, ALL = 4, 8
EVEN, WIDE, WIDER, WIDEST = ([spread, 0.0] * 2 for spread in (0.0, 1.0, 2.0, 3.0))
"""Rewards of first responses, in the order of their PVar."""


@dataclass(frozen=True)
class SecondRound:
    """A policy that answers all prompts but those that it refuses."""

    refused: frozenset[str]

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        names = [request.prompt_id for request in requests]
        responses = [
            Response(name, "", index, f"more {index}", 3, "stop")
            for name in names
            if name not in self.refused
            for index in range(num_responses)
        ]
        return responses, [Rejection(name, "http_400") for name in names if name in self.refused]

    def close(self) -> None:
        pass


def second_round(
    folder: Path,
    rewards: Mapping[str, Sequence[Sequence[float]]],
    *,
    share: float,
    refused_first: Sequence[str] = (),
    refused: Sequence[str] = (),
    combination: CombinationRule = "mean_pvar",
) -> Artifact:
    """Responses of both rounds, by the first rewards of each prompt, by each model."""
    bench = StageBench(open_wiring(folder), folder)
    names = sorted([*rewards, *refused_first])
    prompts = [Prompt(name, (Message("user", name),), "train", "x") for name in names]
    first = [
        Response(name, f"{name}-{index}", index, f"answer {index}", 3, "stop")
        for name in rewards
        for index in range(FIRST)
    ]
    write_table(folder / RESPONSES, first, Response)
    rows = [RejectedRow(name, "prompt_too_long", "") for name in refused_first]
    write_table(folder / REJECTED, rows, RejectedRow)
    tables = {name: (folder / name).read_bytes() for name in (RESPONSES, REJECTED)}
    inputs = {
        "prompts": bench.put("ingest", PROMPTS, prompts, Prompt),
        "responses": put_artifact(bench.ports.store, "sample", files=tables),
    }
    models = "mn"[: len(next(iter(rewards.values())))]
    for number, model in enumerate(models):
        scores = [
            Score(name, f"{name}-{index}", reward)
            for name, of_models in rewards.items()
            for index, reward in enumerate(of_models[number])
        ]
        inputs[f"scores-{model}"] = bench.put("score", SCORES, scores, Score)
    spec = AdaptiveSampleSpec(
        policy="somewhere#a policy",
        settings=SamplerSettings(engine="fake"),
        num_responses=ALL,
        seed=0,
        split="train",
        first_responses=FIRST,
        second_round_share=share,
        reward_models=tuple(models),
        rewards=RewardSettings(),
        combination=combination,
    )
    sampler = SecondRound(frozenset(refused))
    return bench.run(ADAPTIVE_SAMPLE, spec, inputs, sampler=lambda *_: sampler)


def asked_again(artifact: Artifact) -> set[str]:
    return {each.prompt_id for each in artifact.rows(RESPONSES, Response)}


@pytest.mark.parametrize(
    ("combination", "wanted"), [("mean_pvar", "opposed"), ("mean_probability", "agreed")]
)
def test_of_several_models_the_combined_variance_says_who_is_promising(
    tmp_path: Path, combination: CombinationRule, wanted: str
) -> None:
    # Four of six pairs differ. Opposed: p = 0.9 and 0.1, by each model (p − ½)² = 0.16, by their
    # mean 0. Agreed: p = σ(1) = 0.73 by both, 0.053. The mean of the rewards knows nothing of the
    # conflict and would always take the agreed one.
    high = [log(9), 0.0, log(9), 0.0]
    rewards = {"opposed": [high, [-reward for reward in high]], "agreed": [WIDE, WIDE]}
    artifact = second_round(tmp_path, rewards, share=0.5, combination=combination)
    assert asked_again(artifact) == {wanted}


def test_a_prompt_that_only_the_second_round_rejects_keeps_its_first_answers_in_the_accounts(
    tmp_path: Path,
) -> None:
    # In one shard: c and d are the two of three answered prompts that are asked again.
    rewards = {"b": [EVEN], "c": [WIDER], "d": [WIDEST]}
    artifact = second_round(tmp_path, rewards, share=0.67, refused_first=["a"], refused=["d"])
    responses = artifact.rows(RESPONSES, Response)
    assert [each.prompt_id for each in responses] == ["c"] * ALL + ["d"] * FIRST
    assert artifact.rows(REJECTED, RejectedRow) == [
        RejectedRow("a", "prompt_too_long", ""),
        RejectedRow("d", "http_400", ""),
    ]
    # a is never answered and b is left out: 8 each. d has 4 of its 8.
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=32,
        rows_out=12,
        rejected={"http_400": 4, "not_promising": 8, "prompt_too_long": 8},
    )


def test_a_shard_whose_only_promising_prompt_is_rejected_still_adds_up(tmp_path: Path) -> None:
    artifact = second_round(tmp_path, {"a": [WIDE]}, share=0.5, refused=["a"])
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=8, rows_out=4, rejected={"http_400": 4}
    )
