"""What models said about the labels of batches, for people: the curve, and the rows to look at."""

from collections.abc import Iterable
from typing import NamedTuple

from flows.retrain_replay import rows_of_batch
from flows.wiring import Wiring
from pvar.incoming_rows import to_fields
from pvar.labelled_pairs import is_labelled
from pvar.records import Prompt
from tasks.engine.work_folders import work_folder
from tasks.retraining.batch_states import BatchState, RetrainingBatch
from tasks.retraining.withdrawals import withdrawn_ids


class GroupAgreement(NamedTuple):
    """One point of a curve: a model, the labels of one source or annotator, a batch."""

    model: str
    settings: str
    """Digest: where it changes, the model has changed."""
    grouping: str
    group: str
    batch: int
    at: str
    state: BatchState
    agreement: float | None
    lower: float | None
    """Bounds of the 95 % interval."""
    upper: float | None
    num_labels: int
    num_missing: int


def agreement_of(records: Iterable[RetrainingBatch]) -> list[GroupAgreement]:
    """The agreement of all models with these batches: by model and group, oldest batch first."""
    points = [
        GroupAgreement(
            counts.model,
            counts.settings,
            counts.grouping,
            counts.group,
            record.batch.number,
            record.audit.at.isoformat(),
            record.state(is_retraining=False),
            counts.agreement,
            None if (interval := counts.interval()) is None else interval.lower,
            None if interval is None else interval.upper,
            counts.num_labels,
            counts.num_missing,
        )
        for record in records
        if record.audit is not None
        for counts in record.audit.counts
    ]
    return sorted(points, key=lambda each: (each.model, each.grouping, each.group, each.batch))


def disputed_rows(wiring: Wiring, record: RetrainingBatch) -> list[dict[str, object]]:
    """The rows that the models are most against, strongest first, in the form of incoming files.

    `disagreement` of a row is how much the models are against it, and `margins` are theirs. Rows
    that the batch's data no longer has, or that were withdrawn, are left out.
    """
    withdrawn = withdrawn_ids(wiring.store)
    rows = () if record.audit is None else record.audit.rows
    wanted = {row.prompt_id: row for row in rows if row.prompt_id not in withdrawn}
    if not wanted:
        return []
    labelled: dict[str, Prompt] = {}
    with work_folder(wiring.settings.home, "disputed") as scratch:
        for prompt in rows_of_batch(wiring.store, record, None, scratch):
            if is_labelled(prompt):
                labelled.setdefault(prompt.prompt_id, prompt)
    return [
        {
            "prompt_id": prompt_id,
            "source": row.source,
            "annotator": row.annotator,
            "disagreement": row.strength,
            "margins": row.margins,
            **to_fields(labelled[prompt_id]),
        }
        for prompt_id, row in wanted.items()
        if prompt_id in labelled
    ]
