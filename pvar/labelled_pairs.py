"""Held-out labelled pairs: prompts with a chosen and a rejected answer that are not trained on."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from pvar.prompt_rows import annotator_of, parse_prompt, source_of
from pvar.records import BadRow, Pair, Prompt, Row


class HeldOutPairs(NamedTuple):
    """The prompts of a file of labelled pairs, all held out, and why other rows are left out."""

    prompts: list[Prompt]
    rejected: dict[str, int]
    """Number of rows by reason."""
    annotators: dict[str, str]
    """Who labelled a prompt, by its id, where the row says so."""


def read_held_out_pairs(
    rows: Iterable[Row | BadRow],
    source: str,
    source_field: str | None = None,
    annotator_field: str | None = None,
    *,
    withdrawn: Collection[str] = (),
) -> HeldOutPairs:
    """Parse the rows of a file of labelled pairs; of equal prompts the first is kept.

    The fields of a row name its source, instead of `source`, and who labelled it. Prompts with the
    ids `withdrawn` are left out.
    """
    prompts: dict[str, Prompt] = {}
    annotators: dict[str, str] = {}
    rejected: Counter[str] = Counter()
    labelled: list[tuple[Prompt, str | None]] = []
    for row in rows:
        if isinstance(row, BadRow):
            rejected[row.rule] += 1
            continue
        parsed = parse_prompt(row.fields, source_of(row.fields, source_field, source))
        if isinstance(parsed, str):
            rejected[parsed] += 1
        elif parsed.prompt_id in withdrawn:
            rejected["withdrawn"] += 1
        elif not is_labelled(parsed):
            rejected["no_labels"] += 1
        else:
            labelled.append((parsed, annotator_of(row.fields, annotator_field)))
    contradicted = contradicted_pairs([prompt for prompt, _ in labelled])
    for (prompt, annotator), is_contradicted in zip(labelled, contradicted, strict=True):
        if is_contradicted:
            rejected["contradictory_label"] += 1
        elif prompt.prompt_id in prompts:
            rejected["duplicate"] += 1
        else:
            prompts[prompt.prompt_id] = prompt._replace(split="eval")
            if annotator is not None:
                annotators[prompt.prompt_id] = annotator
    return HeldOutPairs(list(prompts.values()), dict(sorted(rejected.items())), annotators)


def is_labelled(prompt: Prompt) -> bool:
    """Whether the source says which of two answers is preferred."""
    return prompt.chosen is not None and prompt.rejected is not None


def contradicted_pairs(prompts: Sequence[Prompt]) -> list[bool]:
    """For each prompt, whether as many others or more prefer its rejected answer to its chosen
    one. Of equally many none is right."""
    preferences = [
        (prompt.prompt_id, (prompt.chosen or "").strip(), (prompt.rejected or "").strip())
        for prompt in prompts
    ]
    votes = Counter(each for each in preferences if each[1] != each[2])
    return [
        0 < votes[prompt_id, better, worse] <= votes[prompt_id, worse, better]
        for prompt_id, better, worse in preferences
    ]


LabelState = Literal["kept", "undecided", "outvoted"]
"""undecided: as many rows prefer the other answer, and none of the prompt's labels is kept."""


def label_states(prompts: Sequence[Prompt]) -> list[LabelState]:
    """What becomes of the label of each prompt, if it has one."""
    contradicted = contradicted_pairs(prompts)
    rows = list(zip(prompts, contradicted, strict=True))
    decided = {prompt.prompt_id for prompt, is_out in rows if not is_out and is_labelled(prompt)}
    return [
        "kept" if not is_out else "outvoted" if prompt.prompt_id in decided else "undecided"
        for prompt, is_out in rows
    ]


def without_label(prompt: Prompt) -> Prompt:
    """The prompt alone: no answers, and no scores of them."""
    return prompt._replace(
        chosen=None, rejected=None, chosen_score=None, rejected_score=None, chosen_aspects=()
    )


def held_out_pairs(prompts: Sequence[Prompt]) -> list[Pair]:
    """The labelled pairs of the held-out prompts, in their order."""
    return [
        Pair(prompt.prompt_id, prompt.messages, prompt.chosen, prompt.rejected, None, None)
        for prompt in prompts
        if prompt.split == "eval" and prompt.chosen is not None and prompt.rejected is not None
    ]
