"""The labels of earlier batches, on which the reward model of a batch's run is trained as well.

They are those of all batches that are done, but for batches with which a reward model was refused
or rolled back (`flows/label_verdicts.py`): what did not pass once is not learned later. They are
written to `retrain/labels/{digest}.jsonl.gz` in the store, by the digest of their content, so that
a run that is repeated finds its results.
"""

import logging
import tempfile
from pathlib import Path

from flows.label_verdicts import UNKNOWN_VERDICT, objection_to_labels
from flows.retrain_replay import rows_of_batch
from infra.row_files import write_rows
from pvar.config import PipelineConfig
from pvar.digest import digest
from pvar.incoming_rows import to_fields
from pvar.labelled_pairs import is_labelled
from pvar.ports import Store
from pvar.records import Prompt
from pvar.replay import EarlierRow, ReplayConfig, choose_replayed
from pvar.retrain_decision import Batch
from tasks.retraining.batch_states import RetrainingBatch, read_records
from tasks.retraining.withdrawals import withdrawn_ids

logger = logging.getLogger(__name__)

_LABELS = "retrain/labels"


def with_earlier_labels(config: PipelineConfig, batch: Batch, store: Store) -> PipelineConfig:
    """The configuration with the labels of the other batches that are done, if it trains a reward
    model and there are any. One that names earlier labels stays as it is."""
    training = config.reward_training
    if training is None or training.earlier is not None:
        return config
    source_field = config.ingest.source_field
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        labels = _labels_of_other_batches(store, batch, source_field, scratch)
        if not labels:
            return config
        content = [[each.prompt_id, each.chosen, each.rejected] for each in labels]
        name = f"{digest(content)}.jsonl.gz"
        write_rows(scratch / name, (to_fields(each, source_field) for each in labels))
        store.upload(scratch / name, f"{_LABELS}/{name}")
    logger.info(
        "batch %d: %d labels of earlier batches for the reward model", batch.number, len(labels)
    )
    learns = training.model_copy(update={"earlier": f"{store.uri}/{_LABELS}/{name}"})
    return config.model_copy(update={"reward_training": learns})


def _labels_of_other_batches(
    store: Store, batch: Batch, source_field: str | None, scratch: Path
) -> list[Prompt]:
    """Of several labels of a prompt the one of the newest batch counts, unless it is withdrawn."""
    rows = [
        EarlierRow(prompt, record.batch.number)
        for record in read_records(store)
        if record.batch.number != batch.number and _may_be_learned(store, record, scratch)
        for prompt in rows_of_batch(store, record, source_field, scratch)
        if is_labelled(prompt)
    ]
    return [row.prompt for row in choose_replayed(rows, withdrawn_ids(store), ReplayConfig())]


def _may_be_learned(store: Store, record: RetrainingBatch, scratch: Path) -> bool:
    """Whether a batch is done, and nothing speaks against its labels."""
    if record.done is None:
        return False
    number = record.batch.number
    try:
        objection = objection_to_labels(store, record.done.run, scratch)
    except UNKNOWN_VERDICT as error:
        logger.warning(
            "batch %d: its labels are left out, because it is not known whether a reward model "
            "was refused with them: %s",
            number,
            error,
        )
        return False
    if objection is not None:
        logger.info("batch %d: its labels are left out: %s", number, objection)
    return objection is None
