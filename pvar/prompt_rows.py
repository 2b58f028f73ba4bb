"""Parse a row of a user's file as a prompt: TRL's prompt-only, preference and unpaired formats.

    standard                        conversational
    {"prompt": "…"}                 {"prompt": [{"role": "user", "content": "…"}]}
    + {"chosen": "…",               + {"chosen": [{"role": "assistant", "content": "…"}],
       "rejected": "…"}                "rejected": [{"role": "assistant", "content": "…"}]}

Also supported: preferences without a prompt, whose conversations share their first messages (TRL's
implicit prompt), answers that repeat the prompt's messages (UltraFeedback), or go on from them with
further turns that they share, `messages` instead of `prompt`, a system message in a column of its
own, and the scores `score_chosen` and `score_rejected`. Standard prompts become one user message.
A column that is null counts as one that is not there. A row in another project's form that is
recognised (`pvar/source_forms.py`) is read as one of these. Any other row is rejected with a
reason, also if a field changes its meaning that cannot be used (`pvar/row_forms.py`).

A row with `answer` (a string, or a list of accepted strings) is an ability question. It is rejected
if no model could give such an answer, such as a worked solution (`pvar/evaluation/ability.py`). A
row with `completion` and `label` (true or false) is an unpaired label (`pvar/unpaired_labels.py`)
for those who ask for labels, and a prompt for all others.
"""

import sys
from collections.abc import Mapping, Sequence

from pvar.digest import prompt_id
from pvar.evaluation.ability import unmatchable, words
from pvar.records import Message, Prompt
from pvar.row_forms import (
    Fields,
    content_rule,
    text_of_content,
    text_rule,
    unused_field,
    with_system,
)
from pvar.source_forms import to_trl
from pvar.unpaired_labels import UnpairedLabel

ROLES = ("system", "user", "assistant")


def parse_prompt(fields: Fields, source: str) -> Prompt | str:
    """The row's prompt (with the split `train`, to be reassigned), or the reason for rejection."""
    row = to_trl(fields)
    if isinstance(row, str):
        return row
    fields = row
    if unused := unused_field(fields):
        return unused
    chosen, rejected = fields.get("chosen"), fields.get("rejected")
    if (chosen is None) != (rejected is None):
        return "chosen_without_rejected" if rejected is None else "rejected_without_chosen"
    messages = _conversation(fields)
    if isinstance(messages, str):
        return messages
    answers = _answer(chosen, messages), _answer(rejected, messages)
    if chosen is not None and None in answers:
        return _answer_rule(chosen, rejected)
    if chosen is not None and not _agrees(fields, messages, answers):
        return "two_labels"
    texts = [message.content for message in messages if message.role != "assistant"]
    texts += [answer for answer in answers if answer is not None]
    if rule := next(filter(None, map(text_rule, texts)), None):
        return rule
    accepted = _accepted_answers(fields.get("answer"))
    if isinstance(accepted, str):
        return accepted
    return Prompt(
        prompt_id(messages),
        messages,
        "train",
        source,
        answers[0],
        answers[1],
        _score(fields.get("score_chosen")),
        _score(fields.get("score_rejected")),
        _ratings(fields.get("chosen_ratings")),
        accepted,
    )


def parse_prompt_or_label(fields: Fields, source: str) -> Prompt | UnpairedLabel | str:
    """The row's prompt, with its one labelled answer if it has one, or the reason for rejection."""
    row = to_trl(fields)
    if isinstance(row, str):
        return row
    fields = row
    prompt = parse_prompt(fields, source)
    if isinstance(prompt, str) or not has_unpaired_label(fields, prompt):
        return prompt
    label = fields["label"]
    text = _answer(fields["completion"], prompt.messages)
    if text is None:
        return "answer_not_text"
    if not text.strip():
        return "empty_completion"
    if label not in (True, False):  # 1 and 0 are equal to them
        return "label_not_true_or_false"
    return UnpairedLabel(prompt, text, bool(label))


def _conversation(fields: Fields) -> tuple[Message, ...] | str:
    """The messages before the answer, or the reason for rejection."""
    given, shared = fields.get("prompt"), None
    if given is None:
        given = fields.get("messages")
    chosen, rejected = fields.get("chosen"), fields.get("rejected")
    if given is None or _goes_on(given, chosen) or _goes_on(given, rejected):
        shared = _common_beginning(chosen, rejected)
        if shared is None and given is None:
            return "no_common_beginning" if _goes_beyond(chosen, rejected) else "no_prompt"
        if shared is None:
            return "answer_of_several_turns"
    messages = _messages(given if shared is None else shared)
    if isinstance(messages, str):
        return messages
    if not any(message.content.strip() for message in messages if message.role == "user"):
        return "empty_prompt"
    if messages[-1].role == "assistant":
        return "prompt_ends_with_assistant"
    return with_system(fields, messages)


def _goes_on(prompt: object, answer: object) -> bool:
    """Whether the answer is a conversation that begins with the prompt and has further turns."""
    first = _messages(prompt)
    if isinstance(first, str) or isinstance(answer, str) or answer is None:
        return False
    messages = _messages(answer)
    if isinstance(messages, str):
        return False
    if messages[0].role == "system" and first[0].role != "system":
        messages = messages[1:]
    return messages[: len(first)] == first and len(messages) > len(first) + 1


def _goes_beyond(*answers: object) -> bool:
    """Whether these are conversations of more than an answer."""
    return all(isinstance(answer, list) and len(answer) > 1 for answer in answers)


def _answer_rule(*answers: object) -> str:
    """Why one of these answers is not the text of one message after the prompt."""
    messages = [_messages(answer) for answer in answers if not isinstance(answer, str)]
    several = any(not isinstance(found, str) and len(found) > 1 for found in messages)
    return "answer_of_several_turns" if several else "answer_not_text"


def source_of(fields: Fields, field: str | None, file_name: str) -> str:
    """Name of a row's source: the text in this field; without one, the name of its file."""
    given = None if field is None else fields.get(field)
    return given if isinstance(given, str) and given.strip() else file_name


def annotator_of(fields: Fields, field: str | None) -> str | None:
    """Who labelled a row: the text or whole number in this field; None without one."""
    given = None if field is None else fields.get(field)
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    return given if isinstance(given, str) and given.strip() else None


def _agrees(
    fields: Fields, messages: Sequence[Message], answers: tuple[str | None, str | None]
) -> bool:
    """Whether `completion` and `label`, if the row of a pair has both, say the same as the pair."""
    text, label = _answer(fields.get("completion"), messages), fields.get("label")
    if text is None or label not in (True, False):
        return True
    chosen, rejected = answers
    return text.strip() == ((chosen if label else rejected) or "").strip()


def has_unpaired_label(fields: Fields, prompt: Prompt) -> bool:
    """Whether the row of this prompt has an answer with a label, beside no pair and no accepted
    answers."""
    has_label = fields.get("completion") is not None and fields.get("label") is not None
    return has_label and prompt.chosen is None and not prompt.is_question


def _messages(conversation: object) -> tuple[Message, ...] | str:
    if isinstance(conversation, str):
        return (Message("user", conversation),)
    if not isinstance(conversation, Sequence) or not conversation:
        return "prompt_not_text_or_messages"
    messages = []
    for item in conversation:
        if not isinstance(item, Mapping):
            return "prompt_not_text_or_messages"
        role, content = item.get("role"), item.get("content")
        if role not in ROLES:
            return "unknown_role"
        text = text_of_content(content)
        if text is None:
            return content_rule(content)
        messages.append(Message(role, text))
    return tuple(messages)


def _answer(answer: object, prompt: Sequence[Message]) -> str | None:
    """Text of the single assistant message after the prompt."""
    if answer is None or isinstance(answer, str):
        return answer
    messages = _messages(answer)
    if isinstance(messages, str):
        return None
    for repeated in (tuple(prompt), tuple(prompt[1:])):  # the second without a system message
        if repeated and messages[: len(repeated)] == repeated:
            messages = messages[len(repeated) :]
            break
    if len(messages) != 1 or messages[0].role != "assistant":
        return None
    return messages[0].content


def _accepted_answers(answer: object) -> tuple[str, ...] | str:
    """The accepted answers (empty if the row is not a question), or the reason for rejection."""
    if answer is None:
        return ()
    accepted = [answer] if isinstance(answer, str) else answer
    if not isinstance(accepted, Sequence) or not accepted:
        return "accepted_answer_not_text"
    if not all(isinstance(text, str) for text in accepted):
        return "accepted_answer_not_text"
    # What normalises to nothing would be found in every answer.
    if not all(map(words, accepted)):
        return "accepted_answer_without_words"
    return unmatchable(accepted) or tuple(accepted)


def _common_beginning(chosen: object, rejected: object) -> list[object] | None:
    """The common first messages of both conversations; None if these are not conversations."""
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        return None
    common = []
    for left, right in zip(chosen, rejected, strict=False):
        if left != right:
            break
        common.append(left)
    return common or None


def _score(value: object) -> float | None:
    """A finite number; None for everything else, including integers too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def _ratings(value: object) -> tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    ratings = [_score(item) for item in value]
    return tuple(rating for rating in ratings if rating is not None)
