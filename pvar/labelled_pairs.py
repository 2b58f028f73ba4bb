"""Held-out labelled pairs: prompts with a chosen and a rejected answer that are not trained on."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pvar.prompt_rows import parse_prompt
from pvar.records import BadRow, Pair, Prompt, Row


class HeldOutPairs(NamedTuple):
    """The prompts of a file of labelled pairs, all held out, and why other rows are left out."""

    prompts: list[Prompt]
    rejected: dict[str, int]
    """Number of rows by reason."""


def read_held_out_pairs(rows: Iterable[Row | BadRow], source: str) -> HeldOutPairs:
    """Parse the rows of a file of labelled pairs; of equal prompts the first is kept."""
    prompts: dict[str, Prompt] = {}
    rejected: Counter[str] = Counter()
    for row in rows:
        parsed = "unreadable_line" if isinstance(row, BadRow) else parse_prompt(row.fields, source)
        if isinstance(parsed, str):
            rejected[parsed] += 1
        elif not is_labelled(parsed):
            rejected["no_labels"] += 1
        elif parsed.prompt_id in prompts:
            rejected["duplicate"] += 1
        else:
            prompts[parsed.prompt_id] = parsed._replace(split="eval")
    return HeldOutPairs(list(prompts.values()), dict(sorted(rejected.items())))


def is_labelled(prompt: Prompt) -> bool:
    """Whether the source says which of two answers is preferred."""
    return prompt.chosen is not None and prompt.rejected is not None


def held_out_pairs(prompts: Sequence[Prompt]) -> list[Pair]:
    """The labelled pairs of the held-out prompts, in their order."""
    return [
        Pair(prompt.prompt_id, prompt.messages, prompt.chosen, prompt.rejected, None, None)
        for prompt in prompts
        if prompt.split == "eval" and prompt.chosen is not None and prompt.rejected is not None
    ]
