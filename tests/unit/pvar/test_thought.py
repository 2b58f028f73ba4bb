"""What a model thinks is told from what it answers, wherever the server puts it."""

import pytest

from pvar.thought import spoken


@pytest.mark.parametrize(
    "content",
    [
        "<think>A is fine. [[A>B]]</think>\n\nB wins. [[B>A]]",
        "  <thinking>A.</thinking><think>[[A>B]]</think> B wins. [[B>A]]",
        "A is fine. [[A>B]]</think>B wins. [[B>A]]",  # the prompt ended with the opening tag
        [{"type": "thinking", "thinking": "[[A>B]]"}, {"type": "text", "text": "B wins. [[B>A]]"}],
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "[[A>B]]"}]},
            {"type": "text", "text": "B wins. "},
            {"type": "text", "text": "[[B>A]]"},
        ],
        [
            {"type": "reasoning", "text": "[[A>B]]"},
            {"type": "output_text", "text": "B wins. [[B>A]]"},
        ],
        [{"type": "text", "text": "<think>[[A>B]]</think>B wins. [[B>A]]"}],
    ],
)
def test_the_answer_is_what_follows_the_thought(content: object) -> None:
    assert spoken(content) == ("B wins. [[B>A]]", True)


@pytest.mark.parametrize("content", ["<think>Let me see. [[A>B]]", [{"type": "thinking"}]])
def test_thought_that_does_not_end_is_no_answer(content: object) -> None:
    assert spoken(content) == ("", True)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("B wins. [[B>A]]", "B wins. [[B>A]]"),
        # A judge that quotes the tags of an answer does not think.
        ("A wrote <think>x</think>, B not. [[B>A]]", "A wrote <think>x</think>, B not. [[B>A]]"),
        ("A forgot to close <think>. [[B>A]]", "A forgot to close <think>. [[B>A]]"),
        ([{"type": "text", "text": "M"}, {"type": "image_url"}, 7], "M"),
        (["B wins. ", "[[B>A]]"], "B wins. [[B>A]]"),
        ([], ""),
        (None, ""),
        (7, ""),
    ],
)
def test_an_answer_without_thought_is_left_as_it_is(content: object, text: str) -> None:
    assert spoken(content) == (text, False)
