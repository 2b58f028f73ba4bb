r"""Rows in the forms of other projects, as rows in TRL's forms (`pvar/prompt_rows.py`).

    openai         {"messages": [{"role": "user", …}, {"role": "assistant", …}]}
                   {"input": {"messages": […]}, "preferred_output": […], "non_preferred_…": […]}
    sharegpt       {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", …}]}
    alpaca         {"instruction": "…", "input": "…", "output": "…"}
    llama_factory  both with `chosen` and `rejected`, with `kto_tag`, or Alpaca's with `history`
    hh             {"chosen": "\n\nHuman: …\n\nAssistant: …", "rejected": "\n\nHuman: …"}
    ultrafeedback  {"instruction": "…", "completions": [{"response": "…"}, …]}
    argilla, label_studio    exports of annotations (`pvar/annotation_exports.py`)

A form is recognised by the fields of the row alone, and only if the row is none of TRL's: whatever
was read without this module is read as before. A row of which two forms could be read is rejected
as `ambiguous_form`. Of a conversation that ends with an answer without a label, the prompt is what
is before the answer. All other fields stay, so that the rules for what changes a row's meaning
(`pvar/row_forms.py`) hold for every form.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pvar.annotation_exports import is_argilla, is_label_studio, of_argilla, of_label_studio
from pvar.row_forms import Fields, unused_field

SourceForm = Literal[
    "trl", "openai", "sharegpt", "alpaca", "llama_factory", "hh", "ultrafeedback", "argilla",
    "label_studio",
]  # fmt: skip
SourceFormat = Literal["auto", SourceForm]

AMBIGUOUS = "ambiguous_form"
_ANSWERS = ("chosen", "rejected")
_ROLES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "model": "assistant", "observation": "tool", "function_call": "tool",
}  # fmt: skip
"""ShareGPT's and LLaMA-Factory's names of roles."""
_TURNS = re.compile(r"\n\n(Human|Assistant): ?")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def forms_of(fields: Fields) -> list[SourceForm]:
    """The forms that a row may have, sorted; `trl` alone if it has none of the others."""
    if _is_trl(fields):
        return ["trl"]
    found: set[SourceForm] = set()
    for name in ("messages", "conversations"):
        if fields.get(name) is not None:
            is_openai = name == "messages" and not _has_from(fields[name])
            alone: SourceForm = "openai" if is_openai else "sharegpt"
            found.add("llama_factory" if _is_labelled(fields) else alone)
    if fields.get("instruction") is not None:
        if fields.get("completions") is not None:
            found.add("ultrafeedback")
        if _is_labelled(fields) or _is_given(fields.get("history")):
            found.add("llama_factory")
        elif fields.get("output") is not None or "ultrafeedback" not in found:
            found.add("alpaca")
    if isinstance(fields.get("input"), Mapping) and fields.get("preferred_output") is not None:
        found.add("openai")
    if all(_is_transcript(fields.get(name)) for name in _ANSWERS):
        found.add("hh")
    if is_argilla(fields):
        found.add("argilla")
    if is_label_studio(fields):
        found.add("label_studio")
    return sorted(found) or ["trl"]


def to_trl(fields: Fields, source_format: SourceFormat = "auto") -> Fields | str:
    """The row in a form of TRL, or the reason for rejection.

    A row that is in one already is itself. With a format, rows in another form are rejected: by
    `other_form` where it is `trl`, else by the rule of what they lack.
    """
    forms = forms_of(fields)
    if source_format == "auto":
        if len(forms) > 1:
            return unused_field(fields) or AMBIGUOUS
        (form,) = forms
    else:
        form = source_format
    if form != "trl":
        return unused_field(fields) or _READERS[form](fields)
    return fields if forms == ["trl"] else "other_form"


def transcript_turns(text: str) -> list[dict[str, str]] | None:
    """The messages of a transcript in which Human and Assistant take turns, up to the assistant's
    last; None if it is none."""
    before, *turns = _TURNS.split(text)
    speakers, contents = turns[::2], turns[1::2]
    is_alternating = speakers == ["Human", "Assistant"] * (len(speakers) // 2)
    if before or not speakers or not is_alternating:
        return None
    return [
        {"role": _SPEAKERS[speaker], "content": content}
        for speaker, content in zip(speakers, contents, strict=True)
    ]


def _is_trl(fields: Fields) -> bool:
    """Whether it is read as it is: with a prompt, with messages that end before the answer, or as
    two conversations with a common beginning."""
    if fields.get("prompt") is not None:
        return True
    chosen, rejected = (fields.get(name) for name in _ANSWERS)
    if isinstance(chosen, list) and isinstance(rejected, list) and chosen[:1] == rejected[:1] != []:
        return True
    if isinstance(chosen, Mapping) or isinstance(rejected, Mapping):
        return False
    if (messages := fields.get("messages")) is None:
        return False
    is_pair = chosen is not None or fields.get("completion") is not None
    return not _has_from(messages) and (is_pair or not _ends_with_answer(messages))


def _ends_with_answer(messages: object) -> bool:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return False
    last = messages[-1]
    return isinstance(last, Mapping) and last.get("role") == "assistant"


def _has_from(messages: object) -> bool:
    """Whether the messages have ShareGPT's fields."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return False
    first = messages[0]
    return isinstance(first, Mapping) and {"from", "value"} <= first.keys()


def _is_labelled(fields: Fields) -> bool:
    return any(fields.get(name) is not None for name in (*_ANSWERS, "kto_tag"))


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("Human:")


def _is_given(value: object) -> bool:
    return value is not None and value not in ("", [])


def _of_sharegpt(fields: Fields) -> Fields | str:
    for name in ("conversations", "messages"):
        if fields.get(name) is not None:
            return _of_conversation(fields, name)
    return "no_conversations"


def _of_conversation(fields: Fields, name: str) -> Fields | str:
    """A conversation, alone or with two answers, or with a label of its last message."""
    turns = _turns(fields[name])
    if turns is None:
        return "prompt_not_text_or_messages"
    given = {key: _answer(fields[key]) for key in _ANSWERS if fields.get(key) is not None}
    tag = fields.get("kto_tag")
    if given and tag is not None:
        return AMBIGUOUS
    if given:
        return {**fields, "prompt": turns, **given}
    *before, last = turns
    if last["role"] != "assistant":
        return {**fields, "prompt": turns} if tag is None else "kto_tag_without_answer"
    if not before:
        return "empty_prompt"
    label = {} if tag is None else {"completion": [last], "label": tag}
    return {**fields, "prompt": before, **label}


def _turns(value: object) -> list[dict[str, object]] | None:
    """The messages with `role` and `content`; None if they are no list of objects."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return None
    turns = [_turn(item) for item in value if isinstance(item, Mapping)]
    return turns if len(turns) == len(value) else None


def _turn(item: Fields) -> dict[str, object]:
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    role = _ROLES.get(role, role) if isinstance(role, str) else role
    others = {key: each for key, each in item.items() if key not in ("from", "value")}
    return {**others, "role": role, "content": content}


def _answer(value: object) -> object:
    """An answer, which LLaMA-Factory writes as one message."""
    if isinstance(value, Mapping):
        return [_turn(value)]
    turns = _turns(value)
    return value if turns is None else turns


def _of_instruction(fields: Fields) -> Fields | str:
    """Alpaca's row: the instruction, a line break, and the input that it is about."""
    instruction, about = fields.get("instruction"), fields.get("input")
    if instruction is None:
        return "no_instruction"
    if not isinstance(instruction, str):
        return "instruction_not_text"
    if about is not None and not isinstance(about, str):
        return "input_not_text"
    text = "\n".join(filter(None, dict.fromkeys((instruction, about))))  # of equal ones, one
    earlier = _history(fields.get("history"))
    if earlier is None:
        return "history_not_pairs"
    prompt = [*earlier, {"role": "user", "content": text}]
    tag, output = fields.get("kto_tag"), fields.get("output")
    if tag is not None and any(fields.get(name) is not None for name in _ANSWERS):
        return AMBIGUOUS
    if output is not None and not isinstance(output, str):
        return "output_not_text"  # two answers, of which the row does not say which is better
    if tag is not None and output is None:
        return "kto_tag_without_answer"
    label = {} if tag is None else {"completion": output, "label": tag}
    return {**fields, "prompt": prompt, **label}


def _history(value: object) -> list[dict[str, str]] | None:
    """The messages of earlier pairs of a question and its answer; None if they are no such."""
    if not _is_given(value):
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    messages = []
    for pair in value:
        match pair:
            case [str(question), str(answer)]:
                messages += [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ]
            case _:
                return None
    return messages


def _of_llama_factory(fields: Fields) -> Fields | str:
    if fields.get("instruction") is not None:
        return _of_instruction(fields)
    if fields.get("conversations") is not None and fields.get("messages") is not None:
        return AMBIGUOUS
    return _of_sharegpt(fields)


def _of_openai(fields: Fields) -> Fields | str:
    given = fields.get("input")
    if isinstance(given, Mapping):
        pair = {"chosen": "preferred_output", "rejected": "non_preferred_output"}
        return {
            **fields,
            **{name: given[name] for name in ("tools",) if name in given},
            "prompt": given.get("messages"),
            **{name: fields.get(theirs) for name, theirs in pair.items()},
        }
    is_given = fields.get("messages") is not None
    return _of_conversation(fields, "messages") if is_given else "no_messages"


def _of_transcripts(fields: Fields) -> Fields | str:
    """HH's row: two transcripts with a common beginning; or a transcript and two answers."""
    prompt = fields.get("prompt")
    if prompt is not None:
        turns = _transcript(prompt)
        if turns is None or turns[-1]["content"].strip():
            return "not_a_transcript"
        return {**fields, "prompt": turns[:-1]}
    found = {}
    for name in _ANSWERS:
        turns = _transcript(fields.get(name))
        if turns is None:
            return "not_a_transcript"
        found[name] = turns
    return {**fields, **found}


def _transcript(value: object) -> list[dict[str, str]] | None:
    return transcript_turns(f"\n\n{value.lstrip()}") if isinstance(value, str) else None


def _of_ultrafeedback(fields: Fields) -> Fields | str:
    """The instruction. The answers are read where they are wanted (`pvar/answer_rows.py`)."""
    instruction = fields.get("instruction")
    if instruction is None:
        return "no_instruction"
    if fields.get("input") not in (None, "", instruction):
        return "input_not_supported"
    return {**fields, "prompt": instruction}


_READERS: Mapping[SourceForm, Callable[[Fields], Fields | str]] = {
    "openai": _of_openai,
    "sharegpt": _of_sharegpt,
    "alpaca": _of_instruction,
    "llama_factory": _of_llama_factory,
    "hh": _of_transcripts,
    "ultrafeedback": _of_ultrafeedback,
    "argilla": of_argilla,
    "label_studio": of_label_studio,
}
