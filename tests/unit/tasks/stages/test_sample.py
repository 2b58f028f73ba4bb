"""Stage sample: one model for all shards, a seed for each, and a bad prompt that costs itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from infra.models import pin_model
from pvar.errors import InputError, ModelError
from pvar.ports import Rejection, Sampler, SampleRequest
from pvar.records import Message, Prompt, Response
from pvar.row_counts import RowCounts
from pvar.sampler_config import SamplerSettings
from tasks.engine.artifact import Artifact
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES, SAMPLE, SampleSpec
from tests.artifacts import StageBench
from tests.workflow import open_wiring

NAMES = [f"p{number}" for number in range(9)]
"""Training prompts: shards of 4, 4 and 1."""


class Call(NamedTuple):
    """What the sampler was asked for at once."""

    names: list[str]
    num_responses: int
    seed: int


@dataclass
class RuleSampler:
    """A policy by a rule on (prompt id, sample index); None is no answer."""

    answer: Callable[[str, int], Response | None]
    rejected: frozenset[str] = frozenset()
    reason: str = "prompt_too_long"
    openings: int = 0
    calls: list[Call] = field(default_factory=list)

    def open(self, *_: object) -> Sampler:
        self.openings += 1
        return self

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        names = [request.prompt_id for request in requests]
        assert [request.messages for request in requests] == [
            (Message("user", f"Question {name}?"),) for name in names
        ]
        self.calls.append(Call(names, num_responses, seed))
        answers = [
            self.answer(name, index)
            for name in reversed(names)  # engines answer in an order of their own
            if name not in self.rejected
            for index in reversed(range(num_responses))
        ]
        rejections = [Rejection(name, self.reason) for name in names if name in self.rejected]
        return [each for each in answers if each is not None], rejections

    def close(self) -> None:
        pass


def answered(name: str, index: int) -> Response:
    return Response(name, f"{name}-{index}", index, f"answer {index} to {name}", 3, "stop")


def sample(
    folder: Path,
    sampler: RuleSampler,
    *,
    seed: int = 0,
    policy: str = "somewhere#a policy",
    engine: Literal["fake", "transformers"] = "fake",
) -> Artifact:
    """Two answers to each training prompt; a held-out prompt is there too."""
    folder.mkdir(exist_ok=True)
    bench = StageBench(open_wiring(folder), folder)
    prompts = [
        Prompt(name, (Message("user", f"Question {name}?"),), "train", "x") for name in NAMES
    ]
    prompts.insert(2, Prompt("held-out", (Message("user", "?"),), "eval", "x"))
    spec = SampleSpec(
        policy=policy,
        settings=SamplerSettings(engine=engine),
        num_responses=2,
        seed=seed,
        split="train",
    )
    inputs = {"prompts": bench.put("ingest", PROMPTS, prompts, Prompt)}
    return bench.run(SAMPLE, spec, inputs, sampler=sampler.open)


def test_every_prompt_is_answered_as_often_as_asked_by_a_model_that_is_loaded_once(
    tmp_path: Path,
) -> None:
    sampler = RuleSampler(answered)
    artifact = sample(tmp_path, sampler)
    assert sampler.openings == 1
    assert [call.names for call in sampler.calls] == [NAMES[:4], NAMES[4:8], NAMES[8:]]
    assert {call.num_responses for call in sampler.calls} == {2}
    rows = artifact.rows(RESPONSES, Response)
    assert rows == [answered(name, index) for name in NAMES for index in range(2)]
    assert artifact.manifest.row_counts == RowCounts(rows_in=18, rows_out=18)


def test_each_shard_of_each_run_has_a_seed_of_its_own(tmp_path: Path) -> None:
    def seeds(folder: str, run_seed: int) -> list[int]:
        sampler = RuleSampler(answered)
        sample(tmp_path / folder, sampler, seed=run_seed)
        return [call.seed for call in sampler.calls]

    first, other = seeds("first", 0), seeds("other", 1)
    assert len({*first, *other}) == 6
    assert seeds("again", 0) == first


def test_what_is_not_answered_or_badly_is_counted_and_moves_nothing(tmp_path: Path) -> None:
    odd = {
        ("p5", 0): None,
        ("p6", 1): answered("p6", 1)._replace(finish_reason="length"),
        ("p7", 0): answered("p7", 0)._replace(text=" "),
        ("p8", 1): answered("p8", 1)._replace(text=answered("p8", 0).text),
    }
    sampler = RuleSampler(
        lambda name, index: odd.get((name, index), answered(name, index)), frozenset({"p1"})
    )
    artifact = sample(tmp_path, sampler)
    wanted = [(name, index) for name in NAMES if name != "p1" for index in range(2)]
    rows = artifact.rows(RESPONSES, Response)
    assert rows == [odd.get(each) or answered(*each) for each in wanted if each != ("p5", 0)]
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=18, rows_out=15, rejected={"not_answered": 1, "prompt_too_long": 2}
    )
    summary = artifact.manifest.summary
    shares = [summary[f"{kind}_share"] for kind in ("ended", "empty", "duplicate")]
    assert shares == pytest.approx([14 / 15, 1 / 15, 1 / 15])


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("prompt_too_long", "raise the first or lower the second"),
        ("refused_by_chat_template", "change the prompts or the policy"),
        # 2048 tokens of the prompt and 512 of the answer.
        ("http_400", r"server refuses them.*must hold 2560 tokens"),
        ("http_405", r"server refuses them, with the reason in the log above$"),
    ],
)
def test_a_policy_that_can_answer_nothing_is_an_error_with_the_reasons(
    tmp_path: Path, reason: str, advice: str
) -> None:
    wanted = rf"none of 9 prompts was answered \(\{{'{reason}': 18\}}\): .*{advice}"
    with pytest.raises(InputError, match=wanted):
        sample(tmp_path, RuleSampler(answered, frozenset(NAMES), reason))


def test_the_advice_is_for_the_most_frequent_reason(tmp_path: Path) -> None:
    # One prompt is too long, the others are not answered, without a reason.
    with pytest.raises(InputError, match="see the engine's log"):
        sample(tmp_path, RuleSampler(lambda *_: None, frozenset(["p1"])))


def test_a_policy_that_is_replaced_while_it_answers_leaves_no_answers(tmp_path: Path) -> None:
    """It was verified before it was loaded, which takes a while."""
    folder = tmp_path / "policy"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    policy = pin_model(str(folder), open_wiring(tmp_path).registry.resolve)

    def answer_meanwhile(name: str, index: int) -> Response:
        (folder / "model.safetensors").write_text("other weights")
        return answered(name, index)

    with pytest.raises(ModelError, match=r"policy changed: its digest was sha256-"):
        sample(tmp_path, RuleSampler(answer_meanwhile), policy=policy, engine="transformers")
    (folder / "model.safetensors").write_text("{}")
    sampler = RuleSampler(answered)
    sample(tmp_path, sampler, policy=policy, engine="transformers")
    assert [call.names for call in sampler.calls] == [NAMES[:4], NAMES[4:8], NAMES[8:]]


def test_where_nothing_was_answered_the_next_run_asks_again(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        sample(tmp_path, RuleSampler(answered, frozenset(NAMES), "http_400"))
    assert sample(tmp_path, RuleSampler(answered)).manifest.row_counts == RowCounts(
        rows_in=18, rows_out=18
    )


def test_a_shard_that_was_answered_is_kept_whatever_became_of_the_others(tmp_path: Path) -> None:
    # Shards of 4, 4 and 1: the server refuses all prompts from the second one on.
    artifact = sample(tmp_path, RuleSampler(answered, frozenset(NAMES[4:]), "http_400"))
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=18, rows_out=8, rejected={"http_400": 10}
    )
