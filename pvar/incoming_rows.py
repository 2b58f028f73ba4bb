"""Validation of incoming files.

A file is accepted or rejected as a whole. It is rejected, with a reason, if it cannot be read, has
no prompt, or has too many invalid rows: a broken export should be fixed, not used in part. A few
invalid rows are left out and counted.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from pvar.digest import digest
from pvar.labelled_pairs import contradicted_pairs, is_labelled
from pvar.prompt_rows import parse_prompt_or_label, source_of
from pvar.records import BadRow, Prompt, Row
from pvar.row_counts import RowCounts
from pvar.unpaired_labels import UnpairedLabel, join_labels

MAX_BAD_SHARE = 0.1
"""Maximum fraction of invalid rows in an accepted file."""


class BatchRows(NamedTuple):
    """The rows of a batch."""

    prompts: list[Prompt]
    row_counts: RowCounts
    """In are the good rows of its files."""

    @property
    def num_labelled(self) -> int:
        """Rows that say which of two answers is preferred."""
        return sum(map(is_labelled, self.prompts))


class FileReport(NamedTuple):
    """The result of validating an incoming file."""

    row_counts: RowCounts
    refusal: str | None
    """Why the file is rejected; None if it is accepted."""
    num_not_new: int = 0
    """Good rows that do not count as new."""


def parse_row(
    row: Row | BadRow, file_name: str, source_field: str | None = None
) -> Prompt | UnpairedLabel | str:
    """The prompt or label of a row of this file, or the reason why it is rejected. `source_field`
    of the row names the source, as in `ingest.source_field`."""
    if isinstance(row, BadRow):
        return row.rule
    return parse_prompt_or_label(row.fields, source_of(row.fields, source_field, file_name))


class SeenRows(NamedTuple):
    """What does not count as new."""

    prompts: Collection[str] = ()
    """Ids of the prompts of earlier rows."""
    labels: Collection[str] = ()
    """`label_key` of earlier rows with labels, and of the two halves of pairs."""
    withdrawn: Collection[str] = ()
    """Ids of prompts that are not used any more."""

    def has(self, row: Prompt | UnpairedLabel) -> bool:
        """Whether the row says nothing new. A new label of an earlier prompt is new."""
        if id_of(row) in self.withdrawn:
            return True
        key = label_key(row)
        return id_of(row) in self.prompts if key is None else key in self.labels


def label_key(row: Prompt | UnpairedLabel) -> str | None:
    """Hash of what a row says about answers to its prompt; None for a row without a label."""
    if isinstance(row, UnpairedLabel):
        return digest([id_of(row), row.completion, row.is_good])
    return digest([row.prompt_id, row.chosen, row.rejected]) if is_labelled(row) else None


def seen_labels(rows: Iterable[Prompt | UnpairedLabel]) -> set[str]:
    """Hashes of the labels of these rows; a pair also says which answer is good and which bad."""
    found: set[str] = set()
    for row in rows:
        if (key := label_key(row)) is None:
            continue
        found.add(key)
        if isinstance(row, Prompt) and row.chosen is not None and row.rejected is not None:
            halves = UnpairedLabel(row, row.chosen, True), UnpairedLabel(row, row.rejected, False)
            found |= {key for half in halves if (key := label_key(half)) is not None}
    return found


def inspect_rows(
    rows: Iterable[Row | BadRow], source: str, seen: SeenRows | None = None
) -> FileReport:
    """Validate the rows of one file, whose name is `source`, and count those not `seen` before."""
    seen = seen or SeenRows()
    num_good = num_not_new = 0
    rejected: Counter[str] = Counter()
    first_bad = ""
    for row in rows:
        parsed = parse_row(row, source)
        if not isinstance(parsed, str):
            num_good += 1
            num_not_new += seen.has(parsed)
            continue
        rejected[parsed] += 1
        if not first_bad:
            why = row.reason if isinstance(row, BadRow) else parsed
            first_bad = f"the first is row {row.number}: {why}"
    row_counts = RowCounts(
        rows_in=num_good + rejected.total(),
        rows_out=num_good,
        rejected=dict(sorted(rejected.items())),
    )
    return FileReport(row_counts, _refusal(row_counts, first_bad), num_not_new)


def id_of(row: Prompt | UnpairedLabel) -> str:
    """Id of the row's prompt."""
    return row.prompt_id if isinstance(row, Prompt) else row.prompt.prompt_id


def batch_rows(
    rows: Iterable[Prompt | UnpairedLabel], withdrawn: Collection[str] = ()
) -> BatchRows:
    """The rows of several files as those of one batch, without prompts with the ids `withdrawn`.

    Unpaired labels of one prompt are joined, over all files. A row without labels is left out if
    another one has labels for the same prompt, because one row of each prompt is used later. Pairs
    that prefer opposite answers are left out.
    """
    prompts: list[Prompt] = []
    labels: list[UnpairedLabel] = []
    num_withdrawn = 0
    for row in rows:
        if id_of(row) in withdrawn:
            num_withdrawn += 1
        elif isinstance(row, Prompt):
            prompts.append(row)
        else:
            labels.append(row)
    joined = join_labels(labels)
    prompts += joined.prompts
    contradicted = contradicted_pairs(prompts)
    prompts = [
        each
        for each, is_contradicted in zip(prompts, contradicted, strict=True)
        if not is_contradicted
    ]
    labelled = {prompt.prompt_id for prompt in prompts if is_labelled(prompt)}
    kept = [
        prompt
        for prompt in prompts
        if is_labelled(prompt) or prompt.is_question or prompt.prompt_id not in labelled
    ]
    rejected = Counter(label.rule for label in joined.rejected)
    if any(contradicted):
        rejected["contradictory_label"] += sum(contradicted)
    if len(kept) < len(prompts):
        rejected["labelled_elsewhere"] = len(prompts) - len(kept)
    if num_withdrawn:
        rejected["withdrawn"] = num_withdrawn
    row_counts = RowCounts(
        rows_in=len(kept) + rejected.total(),
        rows_out=len(kept),
        rejected=dict(sorted(rejected.items())),
    )
    return BatchRows(kept, row_counts)


def _refusal(row_counts: RowCounts, first_bad: str) -> str | None:
    if row_counts.rows_in == 0:
        return "it holds no rows"
    num_bad = row_counts.rows_in - row_counts.rows_out
    if num_bad <= MAX_BAD_SHARE * row_counts.rows_in:
        return None
    return (
        f"{num_bad} of its {row_counts.rows_in} rows are bad {dict(row_counts.rejected)}, more "
        f"than {MAX_BAD_SHARE:.0%}; {first_bad}"
    )


def to_fields(prompt: Prompt, source_field: str | None = None) -> dict[str, object]:
    """The prompt as a row, from which `parse_prompt` gives the same prompt. The name of its source
    is kept in `source_field`."""
    fields: dict[str, object] = {"prompt": [message._asdict() for message in prompt.messages]}
    if prompt.chosen is not None:
        fields |= {"chosen": prompt.chosen, "rejected": prompt.rejected}
    scores = {"score_chosen": prompt.chosen_score, "score_rejected": prompt.rejected_score}
    fields |= {
        name: score
        for name, score in scores.items()
        if score is not None and math.isfinite(score)  # JSON has no NaN
    }
    if prompt.chosen_aspects and all(map(math.isfinite, prompt.chosen_aspects)):
        fields["chosen_ratings"] = list(prompt.chosen_aspects)
    if prompt.is_question:
        fields["answer"] = list(prompt.accepted_answers)
    return fields if source_field is None else {source_field: prompt.source, **fields}
