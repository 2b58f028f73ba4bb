"""Exports of Argilla and Label Studio, as rows in TRL's forms.

    Argilla       {"fields": {"prompt": "…", "response_1": "…", "response_2": "…"},
                   "responses": {"preference": [{"value": "response_1", "user_id": "…"}]}}
                  {"prompt": "…", "response_1": "…", …, "preference.responses": ["response_1"],
                   "preference.responses.status": ["submitted"]}
    Label Studio  {"data": {"prompt": "…", "answer1": "…", "answer2": "…"}, "annotations":
                   [{"result": [{"type": "pairwise", "value": {"selected": "left"}}]}]}

A vote names an answer by its field (`response-1` is `response_1`), by its place (`1`, `a`, `left`),
or by the first place of a ranking. Where all votes name one answer, it is chosen and the other is
rejected. Where they differ, or none was given, the row is a prompt alone. Drafts, discarded and
skipped annotations are no votes.

The answers to `pvar queue export` are not read here: `pvar queue import` knows the pairs.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pvar.row_forms import Fields

_PROMPTS = ("prompt", "instruction", "question", "messages")
"""Names of the field with the prompt."""
_PLACES = ({"1", "a", "left"}, {"2", "b", "right"})
_TIES = {"tie", "equal", "both", "neither", "same"}
_TIE = ""
_RESPONSES = ".responses"


def is_argilla(fields: Fields) -> bool:
    """Whether this is a record that Argilla exports, nested or flat."""
    nested = isinstance(fields.get("fields"), Mapping) and "responses" in fields
    return nested or ("_server_id" in fields and "status" in fields)


def is_label_studio(fields: Fields) -> bool:
    """Whether this is a task that Label Studio exports."""
    return isinstance(fields.get("data"), Mapping) and isinstance(fields.get("annotations"), list)


def of_argilla(fields: Fields) -> Fields | str:
    """The row, or the reason for rejection."""
    if not is_argilla(fields):
        return "not_argilla"
    nested = fields.get("fields")
    given = nested if isinstance(nested, Mapping) else fields
    values = list(_argilla_values(fields))
    return _row(fields, given, [vote for value in values for vote in _argilla_vote(value)])


def of_label_studio(fields: Fields) -> Fields | str:
    """The row, or the reason for rejection."""
    data, annotations = fields.get("data"), fields.get("annotations")
    if not isinstance(data, Mapping) or not isinstance(annotations, list):
        return "not_label_studio"
    if "pair_id" in data:
        return "answer_to_queue_export"
    votes = []
    for annotation in annotations:
        if isinstance(annotation, Mapping) and annotation.get("was_cancelled") is not True:
            votes += list(_regions(annotation.get("result")))
    return _row(fields, data, votes)


def _row(fields: Fields, given: Fields, votes: Sequence[str]) -> Fields | str:
    prompts = [name for name in _PROMPTS if given.get(name) is not None]
    if not prompts:
        return "no_prompt"
    if len(prompts) > 1:
        return "several_prompts"
    row = {**fields, "prompt": given[prompts[0]]}
    answers = _answers({name: each for name, each in given.items() if name != prompts[0]})
    named = {name for vote in votes if (name := _named(vote, answers)) is not None}
    if len(named) != 1 or _TIE in named:
        return row
    (chosen,) = named
    others = [name for name in answers if name != chosen]
    if len(others) != 1:
        return "more_than_two_answers"
    return {**row, "chosen": given[chosen], "rejected": given[others[0]]}


def _answers(given: Fields) -> list[str]:
    """The names of the texts that only differ in a number or letter at their end, in order."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in sorted(name for name, value in given.items() if isinstance(value, str)):
        by_stem[re.sub(r"[\W_]*(?:\d+|[a-d])\Z", "", name.lower())].append(name)
    groups = [names for names in by_stem.values() if len(names) > 1]
    return groups[0] if len(groups) == 1 else []


def _named(vote: str, answers: Sequence[str]) -> str | None:
    """The answer that a vote names; `_TIE` for a tie, None for what is no preference."""
    plain = _plain(vote)
    for place, name in enumerate(answers):
        is_place = place < len(_PLACES) and len(answers) == len(_PLACES) and plain in _PLACES[place]
        if plain == _plain(name) or is_place:
            return name
    return _TIE if plain in _TIES else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _argilla_values(fields: Fields) -> Iterator[object]:
    """The submitted values of all questions."""
    nested = fields.get("responses")
    if isinstance(nested, Mapping):
        for responses in nested.values():
            for each in responses if isinstance(responses, list) else []:
                if isinstance(each, Mapping) and each.get("status") in (None, "submitted"):
                    yield each.get("value")
        return
    for name, values in fields.items():
        if not name.endswith(_RESPONSES) or not isinstance(values, list):
            continue
        states = fields.get(f"{name}.status")
        known = states if isinstance(states, list) and len(states) == len(values) else None
        for place, value in enumerate(values):
            if known is None or known[place] in (None, "submitted"):
                yield value


def _argilla_vote(value: object) -> Iterator[str]:
    """A label, or the first place of a ranking; a first place that is shared is a tie."""
    if isinstance(value, str):
        yield value
    if not isinstance(value, list):
        return
    ranked = [
        (each["rank"], each["value"])
        for each in value
        if isinstance(each, Mapping)
        and isinstance(each.get("rank"), int)
        and isinstance(each.get("value"), str)
    ]
    if ranked:
        best = [name for rank, name in ranked if rank == min(rank for rank, _ in ranked)]
        yield best[0] if len(best) == 1 else "tie"


def _regions(result: object) -> Iterator[str]:
    for region in result if isinstance(result, list) else []:
        value = region.get("value") if isinstance(region, Mapping) else None
        if not isinstance(value, Mapping):
            continue
        if isinstance(value.get("selected"), str):  # Pairwise
            yield value["selected"]
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, str):
                yield choice
