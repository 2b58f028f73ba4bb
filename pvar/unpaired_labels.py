"""Unpaired labels: rows with one answer and whether it is good (TRL's unpaired preference, KTO's).

    {"prompt": "…", "completion": "…", "label": true}

Training here takes pairs. A prompt with a good and a bad answer becomes one labelled pair of them;
if it has several of a kind, the one with the smallest hash is taken, whatever the order of the
rows. All other rows are rejected by name:

    joined_in_pair        not lost: its answer is the rejected one of a pair
    repeated_label        the same answer with the same label as an earlier row
    contradictory_label   the same answer to the same prompt is both good and bad
    surplus_label         the prompt's pair is made of other rows
    unpaired_label        the prompt has no answer with the other label
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pvar.digest import digest
from pvar.records import Prompt


class UnpairedLabel(NamedTuple):
    """A prompt with one labelled answer."""

    prompt: Prompt
    completion: str
    is_good: bool


class RejectedLabel(NamedTuple):
    """A row that is not used, and why."""

    place: int
    """Index among the given labels."""
    rule: str
    detail: str


class JoinedLabels(NamedTuple):
    """The labelled pairs, and the rows that are not one. Together they are all rows."""

    prompts: list[Prompt]
    rejected: list[RejectedLabel]


def join_labels(labels: Iterable[UnpairedLabel]) -> JoinedLabels:
    """Make one pair of each prompt that has a good and a bad answer."""
    by_prompt: dict[str, list[tuple[int, UnpairedLabel]]] = defaultdict(list)
    for place, label in enumerate(labels):
        by_prompt[label.prompt.prompt_id].append((place, label))
    prompts, rejected = [], []
    for rows in by_prompt.values():
        usable, unusable = _usable(rows)
        rejected += unusable
        good = sorted((row for row in usable if row[1].is_good), key=_by_hash)
        bad = sorted((row for row in usable if not row[1].is_good), key=_by_hash)
        if not good or not bad:
            rejected += [
                RejectedLabel(
                    place, "unpaired_label", "no answer to its prompt has the other label"
                )
                for place, _ in usable
            ]
            continue
        (_, chosen), (place, worse) = good[0], bad[0]
        prompts.append(chosen.prompt._replace(chosen=chosen.completion, rejected=worse.completion))
        rejected.append(RejectedLabel(place, "joined_in_pair", "used as the rejected answer"))
        rejected += [
            RejectedLabel(place, "surplus_label", "its prompt's pair is made of other rows")
            for place, _ in (*good[1:], *bad[1:])
        ]
    return JoinedLabels(prompts, sorted(rejected))


def _usable(
    rows: Sequence[tuple[int, UnpairedLabel]],
) -> tuple[list[tuple[int, UnpairedLabel]], list[RejectedLabel]]:
    """The rows of one prompt without repetitions and contradictions."""
    labels_of: dict[str, set[bool]] = defaultdict(set)
    for _, label in rows:
        labels_of[label.completion.strip()].add(label.is_good)
    usable, rejected = [], []
    seen: set[str] = set()
    for place, label in rows:
        text = label.completion.strip()
        if len(labels_of[text]) > 1:
            rejected.append(RejectedLabel(place, "contradictory_label", "good and bad at once"))
        elif text in seen:
            rejected.append(RejectedLabel(place, "repeated_label", "equal to an earlier row"))
        else:
            seen.add(text)
            usable.append((place, label))
    return usable, rejected


def _by_hash(row: tuple[int, UnpairedLabel]) -> str:
    return digest(row[1].completion)
