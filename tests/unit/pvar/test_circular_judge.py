"""A judge that is also the reward model of the selection is refused."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from pvar.circular_judge import refuse_circular_judge
from pvar.errors import ConfigError
from pvar.judge_config import JudgeConfig
from pvar.judging import prompt_text
from pvar.records import Message
from pvar.reward_config import (
    ClassifierReward,
    FakeReward,
    HttpReward,
    ImplicitReward,
    PythonReward,
    VaderReward,
)

DIGEST = f"sha256-{'ab' * 12}"
CLASSIFIER = ClassifierReward(name="rm", model=f"org/rm@v1#{DIGEST}")
OTHER = ClassifierReward(name="y", model=f"/y#v1#sha256-{'1' * 24}")
IMPLICIT = ImplicitReward(
    policy="./tuned#sha256-" + "2" * 24, reference="./start#sha256-" + "3" * 24
)


def judge(settings: dict[str, Any]) -> JudgeConfig:
    parsed: JudgeConfig = TypeAdapter(JudgeConfig).validate_python(settings)
    return parsed


def by_reward(**reward_model: Any) -> JudgeConfig:
    return judge({"kind": "reward_model", "reward_model": reward_model})


@pytest.mark.parametrize(
    "circular",
    [
        by_reward(kind="classifier", name="other", model=f"./copy-of-it#{DIGEST}"),
        by_reward(kind="classifier", name="other", model=f"org/rm@v1#sha256-{'9' * 24}"),
        judge({"kind": "arena_hard", "model": "org/rm@v1"}),  # the same model, asked in words
        by_reward(kind="vader", scale=1.0),
    ],
)
def test_a_judge_that_selected_the_data_is_refused_unless_allowed(circular: JudgeConfig) -> None:
    with pytest.raises(ConfigError, match=r"set evaluate\.allow_circular_judge=true"):
        refuse_circular_judge(circular, [CLASSIFIER, VaderReward()], allowed=False)

    sentence = refuse_circular_judge(circular, [CLASSIFIER, VaderReward()], allowed=True)
    assert sentence is not None
    assert "circular" in sentence


@pytest.mark.parametrize(
    "other",
    [
        judge({"kind": "afinn"}),
        judge({"kind": "arena_hard", "model": "gpt-4.1"}),
        judge({"kind": "fake"}),
        by_reward(kind="classifier", name="other", model="org/other#def"),
        # A `#` in the names of both, and nothing else in common.
        by_reward(kind="classifier", name="other", model=f"/x#v1#sha256-{'0' * 24}"),
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_another_judge_passes_without_a_word(other: JudgeConfig, allowed: bool) -> None:
    models = [CLASSIFIER, VaderReward(), OTHER, IMPLICIT]
    assert refuse_circular_judge(other, models, allowed=allowed) is None


def test_a_function_is_known_by_its_name_and_its_folder_or_the_content_of_that() -> None:
    def own(folder: str, function: str = "a:b") -> dict[str, Any]:
        return {"kind": "python", "name": "x", "folder": folder, "function": function}

    selecting = PythonReward(**own(f"/here#{DIGEST}"))
    for same in (own(f"/copy#{DIGEST}"), own(f"/here#sha256-{'9' * 24}")):
        with pytest.raises(ConfigError, match="a:b of "):
            refuse_circular_judge(by_reward(**same), [selecting], allowed=False)
    other = by_reward(**own(f"/here#{DIGEST}", "a:c"))
    assert refuse_circular_judge(other, [selecting], allowed=False) is None
    written = PythonReward(**own("./here"))
    assert refuse_circular_judge(by_reward(**own("./there")), [written], allowed=False) is None
    with pytest.raises(ConfigError, match=r"a:b of \./here"):
        refuse_circular_judge(by_reward(**own("./here")), [written], allowed=False)


def test_a_reward_model_on_a_server_is_known_by_the_models_name() -> None:
    served = HttpReward(name="x", model="org/served", api="pvar")
    for same in (
        by_reward(kind="http", name="y", model="org/served", api="vllm_score"),
        judge({"kind": "arena_hard", "model": "org/served"}),
    ):
        with pytest.raises(ConfigError, match="org/served"):
            refuse_circular_judge(same, [served], allowed=False)
    other = by_reward(kind="http", name="x", model="org/other", api="pvar")
    assert refuse_circular_judge(other, [served], allowed=False) is None


def test_a_judge_that_shares_one_of_two_models_is_another_one() -> None:
    """A reward of two models is compared by both, whatever the fields that hold them are called."""
    by_its_policy = by_reward(kind="classifier", name="p", model=IMPLICIT.policy)
    assert refuse_circular_judge(by_its_policy, [IMPLICIT], allowed=False) is None
    assert refuse_circular_judge(by_its_policy, [FakeReward()], allowed=False) is None


def test_one_question_is_shown_as_it_is_and_a_conversation_with_its_roles() -> None:
    assert prompt_text([Message("user", "Why {x}?\n")]) == "Why {x}?\n"
    assert (
        prompt_text([Message("system", "Be brief."), Message("user", "Why?")])
        == "[system]\nBe brief.\n\n[user]\nWhy?"
    )
