"""The label audit of a batch: models are asked about its labels, before anything is trained.

The models' answers are artifacts of the pipeline's plan, which its run reuses. What they say is
kept with the batch, once: it is a record of models that had not seen these labels. So it is not
made again if the batch is run again.
"""

import logging

from flows.pinning import pin
from flows.pipeline import run_node
from flows.wiring import Wiring
from pvar.config import PipelineConfig
from pvar.evaluation.label_audit import (
    AskedLabel,
    count_agreement,
    find_disagreements,
    strongest_disagreements,
)
from pvar.label_audit_config import HoldConfig
from pvar.retrain_decision import Batch
from tasks.engine.artifact import open_artifact
from tasks.engine.work_folders import work_folder
from tasks.label_nodes import AUDIT_NODE, label_nodes
from tasks.retraining.batch_states import RetrainingBatch, read_records
from tasks.retraining.batches import folder_of, to_json
from tasks.retraining.label_audits import AGREEMENT, LabelAudit
from tasks.stages.audit import ASKED

logger = logging.getLogger(__name__)

NUM_SHOWN = 50
"""Rows that are named in a batch's record, those that the models are most against."""


def with_new_labels(config: PipelineConfig, batch: Batch) -> PipelineConfig:
    """The configuration whose audit is of the batch's new rows; without audit if none has a
    label."""
    if config.label_audit is None:
        return config
    audit = config.label_audit.model_copy(update={"num_rows": batch.num_pairs})
    return config.model_copy(update={"label_audit": audit if batch.num_labelled != 0 else None})


def is_held_for_labels(
    record: RetrainingBatch, config: PipelineConfig, hold: HoldConfig | None, wiring: Wiring
) -> LabelAudit | None:
    """The audit of a batch that waits for a person; None if it can be run.

    Models are asked if `config` has an audit and the batch has none yet. `hold` None holds nothing.
    """
    if config.label_audit is None or record.audit is not None:
        return record.audit if record.is_held else None
    batch, store = record.batch, wiring.store
    rows = _ask(config, batch, wiring)
    counts = count_agreement(rows)
    earlier = [
        each
        for other in read_records(store)
        if other.done is not None and other.audit is not None
        for each in other.audit.counts
    ]
    found = find_disagreements(counts, earlier, hold or HoldConfig())
    audit = LabelAudit(
        at=wiring.clock(),
        counts=tuple(counts),
        disagreements=tuple(found),
        rows=tuple(strongest_disagreements(rows, found, NUM_SHOWN)),
        is_held=bool(found) and hold is not None,
    )
    store.create(f"{folder_of(batch.number)}/{AGREEMENT}", to_json(audit))
    for each in found:
        logger.warning("batch %d: %s", batch.number, each.sentence)
    return audit if audit.is_held else None


def held_sentence(batch: Batch, audit: LabelAudit) -> str:
    """Why a batch waits, and what a person can do."""
    number = batch.number
    why = "; ".join(each.sentence for each in audit.disagreements)
    return (
        f"batch {number} waits for a person, because models disagree with its labels: {why}. Its "
        f"rows: pvar batches show {number}; then pvar batches accept {number}, or reject {number} "
        "and put corrected files into the incoming folder"
    )


def _ask(config: PipelineConfig, batch: Batch, wiring: Wiring) -> list[AskedLabel]:
    """What the models say about the labels: rows of the artifact of node audit."""
    pinned = pin(config, wiring)
    nodes = label_nodes(pinned)
    tracking = wiring.tracking
    run = tracking.start_run(f"audit-batch-{batch.number}", {"pvar.batch": str(batch.number)})
    try:
        for node in nodes:
            run_node(node, pinned, wiring, run)
        (keys,) = (node.keys for node in nodes if node.name == AUDIT_NODE)
        with work_folder(wiring.settings.home, AUDIT_NODE) as scratch:
            artifact = open_artifact(wiring.store, keys.stage, keys.digest, scratch)
            rows = artifact.rows(ASKED, AskedLabel)
        tracking.log_summary(run, artifact.manifest.summary)
    except BaseException:  # stopped from outside, too
        tracking.end_failed_run(run)
        raise
    tracking.end_run(run, failed=False)
    return rows
