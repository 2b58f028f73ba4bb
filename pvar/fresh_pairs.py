"""Fresh pairs: labelled pairs of a batch that no training ever sees, as an exam of that batch.

An exam that stays the same wears out, because models are chosen by it. Fresh pairs are new with
each batch, and nothing is chosen by them. A prompt is on the fresh side by a hash of its id, so
that it is on the same side in every batch, whatever labels it comes with. Rows of the fresh side
without a label are of no use and are left out, too: a later batch may label them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pvar.digest import digest
from pvar.incoming_rows import BatchRows
from pvar.labelled_pairs import is_labelled
from pvar.records import Prompt
from pvar.row_counts import RowCounts

FRESH = "fresh"
"""Name of the benchmark of fresh pairs."""


class FreshSplit(NamedTuple):
    """The rows of a batch without the fresh side."""

    rows: BatchRows
    """Rows to train on. The others are counted as rejected: `fresh_exam` are asked,
    `fresh_like_earlier` resemble a row of earlier batches, `fresh_repeated` are further labels of a
    prompt that is asked, and `fresh_unlabelled` have no label."""
    fresh: list[Prompt]
    """Labelled pairs to ask, one of each prompt, in the order of the rows."""
    left_out: tuple[str, ...]
    """Ids of the prompts of the fresh side, sorted."""


def is_fresh(prompt_id: str, share: float) -> bool:
    """Whether a prompt is on the fresh side: with probability `share` over prompt ids."""
    return int(digest(["fresh", prompt_id], length=8), 16) / 16**8 < share


def split_fresh(
    rows: BatchRows, share: float, untrained: Callable[[list[Prompt]], Sequence[Prompt]]
) -> FreshSplit:
    """Take the fresh side out of the rows of a batch.

    `untrained` gives those of some prompts that no earlier batch has, or nearly so. Ability
    questions stay, because nothing is trained on them.
    """
    training: list[Prompt] = []
    labelled: dict[str, Prompt] = {}
    left_out: set[str] = set()
    reasons: Counter[str] = Counter()
    for row in rows.prompts:
        if row.is_question or not is_fresh(row.prompt_id, share):
            training.append(row)
            continue
        left_out.add(row.prompt_id)
        if not is_labelled(row):
            reasons["fresh_unlabelled"] += 1
        elif row.prompt_id in labelled:
            reasons["fresh_repeated"] += 1
        else:
            labelled[row.prompt_id] = row
    fresh = list(untrained(list(labelled.values())))
    reasons["fresh_exam"] = len(fresh)
    reasons["fresh_like_earlier"] = len(labelled) - len(fresh)
    rejected = Counter(rows.row_counts.rejected) + reasons
    row_counts = RowCounts(
        rows_in=rows.row_counts.rows_in,
        rows_out=len(training),
        rejected=dict(sorted(rejected.items())),
    )
    return FreshSplit(BatchRows(training, row_counts), fresh, tuple(sorted(left_out)))
