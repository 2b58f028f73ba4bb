"""Label Studio's formats: tasks with a labelling configuration, and the JSON export of answers.

As its documentation describes them (labelstud.io/guide/task_format, labelstud.io/tags/choices):

    task     {"data": {"pair_id": "…", "prompt": "…", "answer_1": "…", "answer_2": "…"}}
    export   {"data": {…}, "annotations": [{"completed_by": 10, "was_cancelled": false,
              "created_at": "…", "updated_at": "…", "result": [{"from_name": "preference",
              "to_name": "prompt", "type": "choices", "value": {"choices": ["1"]}}]}, …]}

The control is `Choices`, because `Pairwise` has no tie; a choice's alias is what the export has.
`completed_by` is a user's id, or an object with `email` and `id`. A skipped task is an annotation
with `was_cancelled`. The style keeps spaces, which are trimmed otherwise (labelstud.io/tags/text).
Rewards and the order of the queue are not in the tasks: annotators would see them among the columns
of the project. Label Studio's SDK is not used: it is a client of its server, and has these formats
as plain dicts, too.
"""

from collections.abc import Mapping

from pvar.annotation_answers import PREFERRED, PairAnswer, UnusableAnswer, make_answer
from pvar.annotation_queue import QueuedPair
from pvar.records import Message

CONTROL_NAME = "preference"

LABELLING_CONFIGURATION = f"""\
<View>
  <Style>.htx-text {{ white-space: pre-wrap; }}</Style>
  <Header value="Which answer is better?"/>
  <Text name="prompt" value="$prompt" valueType="text"/>
  <View style="display: flex;">
    <View style="flex: 50%; margin-right: 1em;">
      <Header value="Answer 1" size="4"/>
      <Text name="answer_1" value="$answer_1" valueType="text"/>
    </View>
    <View style="flex: 50%;">
      <Header value="Answer 2" size="4"/>
      <Text name="answer_2" value="$answer_2" valueType="text"/>
    </View>
  </View>
  <Choices name="{CONTROL_NAME}" toName="prompt" choice="single-radio" required="true">
    <Choice value="Answer 1 is better" alias="1" hotkey="1"/>
    <Choice value="Answer 2 is better" alias="2" hotkey="2"/>
    <Choice value="Both are equally good or bad" alias="tie" hotkey="3"/>
  </Choices>
</View>
"""
"""The labelling configuration of a project for these tasks."""


def to_task(pair: QueuedPair) -> dict[str, object]:
    """The task of a pair."""
    return {
        "data": {
            "pair_id": pair.pair_id,
            "prompt": _as_text(pair.messages),
            "answer_1": pair.answer_1,
            "answer_2": pair.answer_2,
            "source": pair.source,
        }
    }


def parse_task(fields: Mapping[str, object]) -> list[PairAnswer | UnusableAnswer]:
    """The answers to an exported task; none if nobody has seen it."""
    data = fields.get("data")
    pair_id = data.get("pair_id") if isinstance(data, Mapping) else None
    annotations = fields.get("annotations")
    if not isinstance(annotations, list):
        return []
    return [
        _parse_annotation(pair_id if isinstance(pair_id, str) else None, annotation)
        for annotation in annotations
    ]


def _parse_annotation(pair_id: str | None, annotation: object) -> PairAnswer | UnusableAnswer:
    if not isinstance(annotation, Mapping):
        return UnusableAnswer(pair_id, "no_choice")
    chosen = _choices(annotation.get("result"))
    preferred = next((each for each in PREFERRED if chosen == [each]), None)
    if annotation.get("was_cancelled") is True:
        preferred = "skipped"
    return make_answer(
        pair_id,
        preferred,
        _user(annotation.get("completed_by")),
        annotation.get("updated_at") or annotation.get("created_at"),
    )


def _choices(result: object) -> list[object]:
    """All that is chosen with the control of the configuration."""
    found: list[object] = []
    for region in result if isinstance(result, list) else []:
        if isinstance(region, Mapping) and region.get("from_name") == CONTROL_NAME:
            value = region.get("value")
            choices = value.get("choices") if isinstance(value, Mapping) else None
            found += choices if isinstance(choices, list) else []
    return found


def _user(completed_by: object) -> object:
    if isinstance(completed_by, Mapping):
        return completed_by.get("email") or completed_by.get("id")
    return completed_by


def _as_text(messages: tuple[Message, ...]) -> str:
    """A single message as it is; a conversation with the roles above the messages."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}:\n{message.content}" for message in messages)
