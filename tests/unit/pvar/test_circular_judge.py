"""A judge that is also the reward model of the selection is refused."""

import pytest

from pvar.errors import ConfigError
from pvar.judging import Identity, prompt_text, refuse_circular_judge
from pvar.records import Message

DIGEST = f"sha256-{'ab' * 12}"
CLASSIFIER: Identity = {"kind": "classifier", "name": "rm", "model": f"org/rm@v1#{DIGEST}"}
VADER: Identity = {"kind": "vader", "name": "vader", "scale": 4.0}


@pytest.mark.parametrize(
    "judge",
    [
        {**CLASSIFIER, "kind": "reward_model", "reward_model": "classifier"},
        {"kind": "reward_model", "reward_model": "classifier", "model": f"./copy-of-it#{DIGEST}"},
        {"kind": "reward_model", "reward_model": "classifier", "model": "org/rm@v1"},
        {"kind": "arena_hard", "model": "org/rm@v1"},  # the same model, asked in words
        {"kind": "reward_model", "reward_model": "vader", "scale": 1.0},
        {"kind": "vader"},
    ],
)
def test_a_judge_that_selected_the_data_is_refused_unless_allowed(judge: Identity) -> None:
    with pytest.raises(ConfigError, match="circular; choose another judge"):
        refuse_circular_judge(judge, [CLASSIFIER, VADER], allowed=False)

    sentence = refuse_circular_judge(judge, [CLASSIFIER, VADER], allowed=True)
    assert sentence is not None
    assert "circular" in sentence


@pytest.mark.parametrize(
    "judge",
    [
        {"kind": "afinn", "lexicon": "AFINN-en-165"},
        {"kind": "arena_hard", "model": "gpt-4.1"},
        {"kind": "reward_model", "reward_model": "classifier", "model": "org/other#def"},
        {"kind": "fake_judge"},
        # A `#` in the names of both, and nothing else in common.
        {"kind": "reward_model", "reward_model": "classifier", "model": f"/x#v1#sha256-{'0' * 24}"},
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_another_judge_passes_without_a_word(judge: Identity, allowed: bool) -> None:
    models: list[Identity] = [
        CLASSIFIER,
        VADER,
        {"kind": "fake", "name": "fake"},
        {"kind": "classifier", "name": "y", "model": f"/y#v1#sha256-{'1' * 24}"},
    ]

    assert refuse_circular_judge(judge, models, allowed=allowed) is None


def test_one_question_is_shown_as_it_is_and_a_conversation_with_its_roles() -> None:
    assert prompt_text([Message("user", "Why {x}?\n")]) == "Why {x}?\n"
    assert (
        prompt_text([Message("system", "Be brief."), Message("user", "Why?")])
        == "[system]\nBe brief.\n\n[user]\nWhy?"
    )
