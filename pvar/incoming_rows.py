"""Validation of incoming files.

A file is accepted or rejected as a whole. It is rejected, with a reason, if it cannot be read, has
no prompt, or has too many invalid rows: a broken export should be fixed, not used in part. A few
invalid rows are left out and counted.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from pvar.prompt_rows import parse_prompt
from pvar.records import BadRow, Prompt, Row
from pvar.row_counts import RowCounts

MAX_BAD_SHARE = 0.1
"""Maximum fraction of invalid rows in an accepted file."""


class FileReport(NamedTuple):
    """The result of validating an incoming file."""

    row_counts: RowCounts
    refusal: str | None
    """Why the file is rejected; None if it is accepted."""


def parse_row(row: Row | BadRow, source: str) -> Prompt | str:
    """The prompt of a row of the file `source`, or the reason why it is rejected."""
    return "unreadable_line" if isinstance(row, BadRow) else parse_prompt(row.fields, source)


def inspect_rows(rows: Iterable[Row | BadRow], source: str) -> FileReport:
    """Validate the rows of one file, whose name is `source`."""
    num_good = 0
    rejected: Counter[str] = Counter()
    first_bad = ""
    for row in rows:
        parsed = parse_row(row, source)
        if isinstance(parsed, Prompt):
            num_good += 1
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
    return FileReport(row_counts, _refusal(row_counts, first_bad))


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


def to_fields(prompt: Prompt) -> dict[str, object]:
    """The prompt as a row, from which `parse_prompt` gives the same prompt."""
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
    return fields
