"""Label Studio's formats, as its documentation describes them."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from pvar.annotation_answers import PairAnswer, UnusableAnswer
from pvar.annotation_queue import QueuedPair
from pvar.label_studio import LABELLING_CONFIGURATION, parse_task, to_task
from pvar.records import Message

PAIR = QueuedPair(
    "pair", "prompt", (Message("user", "Why?"),), "web", "So.", "Because.", "pvar", 0.1, 2.0, 1.0
)


def annotation(*choices: str, **changes: Any) -> dict[str, Any]:
    """An annotation with the keys of labelstud.io/guide/task_format."""
    return {
        "id": 1001,
        "result": [
            {
                "from_name": "preference",
                "id": "Dx_aB91ISN",
                "origin": "manual",
                "to_name": "prompt",
                "type": "choices",
                "value": {"choices": list(choices)},
            }
        ],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2021-03-09T22:16:08.728353Z",
        "updated_at": "2021-03-09T22:18:00.728378Z",
        "lead_time": 4.288,
        "result_count": 0,
        "task": 1,
        "completed_by": 10,
        **changes,
    }


def parsed(**changes: Any) -> PairAnswer | UnusableAnswer:
    choices = changes.pop("choices", ("2",))
    (answer,) = parse_task(
        {**to_task(PAIR), "id": 1, "annotations": [annotation(*choices, **changes)]}
    )
    return answer


def test_the_configuration_names_every_variable_of_the_tasks_and_every_answer() -> None:
    root = ElementTree.fromstring(LABELLING_CONFIGURATION)
    data = to_task(PAIR)["data"]
    assert isinstance(data, dict)
    shown = {tag.get("value", "")[1:] for tag in root.iter("Text")}
    assert shown == {"prompt", "answer_1", "answer_2"}
    assert shown <= data.keys()
    (control,) = root.iter("Choices")
    assert control.get("toName") in {tag.get("name") for tag in root.iter("Text")}
    assert [choice.get("alias") for choice in control.iter("Choice")] == ["1", "2", "tie"]


def test_a_task_does_not_say_which_answer_has_the_higher_reward() -> None:
    assert to_task(PAIR) == to_task(PAIR._replace(reward_1=-9.0, value=0.2, measure="entropy"))


def test_a_conversation_is_shown_with_its_roles() -> None:
    turns = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Why?"))
    data = to_task(PAIR._replace(messages=turns))["data"]
    assert isinstance(data, dict)
    assert data["prompt"] == "user:\nHi\n\nassistant:\nHello\n\nuser:\nWhy?"


def test_the_choice_its_annotator_and_the_last_change_are_read() -> None:
    answer = parsed()
    assert isinstance(answer, PairAnswer)
    assert (answer.pair_id, answer.preferred, answer.annotator) == ("pair", "2", "10")
    assert answer.answered_at.isoformat() == "2021-03-09T22:18:00.728378+00:00"
    by_email = parsed(completed_by={"id": 10, "email": "ann@example.org"})
    assert isinstance(by_email, PairAnswer)
    assert by_email.annotator == "ann@example.org"


def test_a_cancelled_annotation_is_skipped_and_a_task_nobody_saw_has_no_answers() -> None:
    cancelled = parsed(was_cancelled=True, result=[])
    assert isinstance(cancelled, PairAnswer)
    assert cancelled.preferred == "skipped"
    assert parse_task({**to_task(PAIR), "annotations": []}) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"result": []}, "no_choice"),
        ({"choices": ()}, "no_choice"),
        ({"choices": ("1", "2")}, "no_choice"),
        ({"choices": ("Answer 1 is better",)}, "no_choice"),  # a configuration without aliases
        ({"completed_by": None}, "no_annotator"),
        ({"created_at": None, "updated_at": None}, "no_time"),
    ],
)
def test_an_annotation_that_cannot_be_read_has_a_reason(
    changes: dict[str, Any], reason: str
) -> None:
    assert parsed(**changes) == UnusableAnswer("pair", reason)


def test_a_task_of_another_project_is_in_no_queue() -> None:
    other = {"data": {"image": "x.jpg"}, "annotations": [annotation("1")]}
    assert parse_task(other) == [UnusableAnswer(None, "not_in_queue")]
