"""The rows that earlier batches brought, for a new batch that replays some of them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from flows.label_verdicts import UNKNOWN_VERDICT, objection_to_labels
from flows.run_record import load_run
from infra.row_files import read_rows
from pvar.errors import ArtifactError, InputError, NotFoundError
from pvar.incoming_rows import parse_row
from pvar.labelled_pairs import is_labelled, without_label
from pvar.ports import Store
from pvar.records import Prompt
from pvar.replay import EarlierRow, ReplayConfig, choose_replayed
from tasks.engine.artifact import open_artifact
from tasks.engine.tables import PromptVariance
from tasks.retraining.batch_states import RetrainingBatch
from tasks.retraining.withdrawals import withdrawn_ids
from tasks.stages.select import SELECT, VARIANCE

logger = logging.getLogger(__name__)


def replayed_rows(
    store: Store,
    records: Sequence[RetrainingBatch],
    new: Sequence[Prompt],
    config: ReplayConfig,
    *,
    source_field: str | None,
    scratch: Path,
) -> list[EarlierRow]:
    """The earlier rows that are trained on again with the prompts of a new batch.

    Only batches that are done are read: what was set aside may be what is wrong with it. Of each
    batch only the rows that it brought count, not those that it replayed. Withdrawn prompts are
    left out. Rows of a batch whose labels are not learned again come without them.
    """
    rows: list[EarlierRow] = []
    for record in records:
        if record.done is None:
            continue
        pvar = _pvar_of_run(store, record.done.run, scratch) if config.order == "pvar" else {}
        found = rows_of_batch(store, record, source_field, scratch)
        if any(map(is_labelled, found)) and _has_refused_labels(store, record.done.run, scratch):
            logger.info("batch %d: its rows are replayed without labels", record.batch.number)
            found = [without_label(prompt) for prompt in found]
        rows += [
            EarlierRow(prompt, record.batch.number, pvar.get(prompt.prompt_id)) for prompt in found
        ]
    taken = withdrawn_ids(store) | {prompt.prompt_id for prompt in new}
    return choose_replayed(rows, taken, config)


def rows_of_batch(
    store: Store, record: RetrainingBatch, source_field: str | None, scratch: Path
) -> list[Prompt]:
    """The rows that a batch brought, without those that it replayed."""
    batch = record.batch
    path = scratch / batch.data.rpartition("/")[2]
    store.download(batch.data, path)
    rows = [parse_row(row, path.name, source_field) for row in read_rows(path)]
    path.unlink()
    return [row for row in rows[: batch.num_pairs] if isinstance(row, Prompt)]


def _has_refused_labels(store: Store, run: str, scratch: Path) -> bool:
    """Whether something speaks against the labels of the batch of this run, as far as is known."""
    try:
        return objection_to_labels(store, run, scratch) is not None
    except UNKNOWN_VERDICT:
        return False


def _pvar_of_run(store: Store, run: str, scratch: Path) -> dict[str, float]:
    """PVar by prompt id in a run; empty if its selection is gone."""
    try:
        nodes = {node.name: node.artifact for node in load_run(store, run).nodes}
        stage, _, digest = nodes.get(SELECT.name, "").partition("/")
        table = open_artifact(store, stage or SELECT.name, digest, scratch).rows(
            VARIANCE, PromptVariance
        )
    except (ArtifactError, InputError, NotFoundError, ValidationError) as error:
        logger.warning("run %s: its PVar is not known for replay: %s", run, error)
        return {}
    return {row.prompt_id: row.pvar for row in table if row.pvar is not None}
