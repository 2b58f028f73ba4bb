"""The run of one batch of retraining: with which configuration, and how its end is recorded.

An attempt is recorded before its run starts, because a run that is killed (out of memory) cannot
record it.

An attempt counts only if the batch can be its cause. A person who stops a run (Ctrl-C, a cancelled
run) leaves the batch as it was. An outage (`infra/outages.py`), or a platform that ends the process
(SIGTERM), ends the retraining with its error; a later one runs the batch again, after a pause.

A batch whose run waits for the approval of its model is neither done nor failed. It is run again
after the decision, with the configuration of that run, so that complete artifacts are reused. So
is one that waits for people's answers, except that its model is compared with the champion of then:
another batch may have been promoted meanwhile, and the pairs do not depend on the opponent. If the
record of that run cannot be read, or after `pvar batches retry`, the configuration is the one
of the retraining.

A batch whose labels models disagree with (`flows/retrain_audit.py`) waits for a person, too. It has
no run yet, and other batches are not held back by it.
"""

import logging
from typing import NamedTuple

from prefect.exceptions import CancelledRun
from pydantic import ValidationError

from flows.approval import is_approval_decided
from flows.pipeline import pipeline
from flows.retrain_audit import held_sentence, is_held_for_labels, with_new_labels
from flows.retrain_exam import WithExam, freeze, with_exam
from flows.retrain_fresh import with_fresh_exam
from flows.retrain_labels import with_earlier_labels
from flows.retrain_resume import resumed, waits_for_answers
from flows.run_record import RunRecord, load_run
from flows.wiring import Wiring
from flows.withdrawn_prompts import with_withdrawals
from infra.outages import is_outage
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, InputError, StageCancelledError, StoreError
from pvar.ports import Store
from pvar.retrain_decision import Batch, RetrainConfig
from tasks.retraining.batch_states import RetrainingBatch, forget_outage, record_outage
from tasks.retraining.batches import (
    Attempt,
    begin_attempt,
    record_failure,
    record_success,
    record_waiting_run,
    take_back,
)
from tasks.retraining.label_audits import LabelAudit
from tasks.retraining.outage_notes import note_outage
from tasks.stages.annotate import has_answers

logger = logging.getLogger(__name__)


class BatchEnd(NamedTuple):
    """How the run of a batch ended."""

    run: str
    waiting: str | None
    """A sentence about what it waits for; None if it does not wait."""


def run_batch(record: RetrainingBatch, config: RetrainConfig, wiring: Wiring) -> BatchEnd:
    """Run the pipeline on a batch and record how the run ended. Errors of the run are raised.

    A waiting run is resumed only when it can continue, with its own configuration.
    """
    store, batch = wiring.store, record.batch
    waiting = _waiting_run(record, wiring)
    try:
        if waiting and not can_go_on(waiting, wiring):
            return _waits(batch, waiting)
        if waiting and record.waiting:
            asked = resumed(waiting, record.waiting.proposed, config)
        else:
            asked = _configuration(batch, config, wiring)
    except Exception as error:  # whatever it is, the batch's record says so
        # The batch is not to blame for a gate that needs another exam.
        if waiting or not isinstance(error, ConfigError):
            record_end(batch, begin_attempt(store, batch, wiring.clock()), error, wiring)
        raise
    logger.info(
        "batch %d: %d rows of %d files, %s with labels, and %d rows of earlier batches",
        batch.number,
        batch.num_pairs,
        len(batch.files),
        "unknown" if batch.num_labelled is None else batch.num_labelled,
        sum(each.num_rows for each in batch.replayed),
    )
    attempt = begin_attempt(store, batch, wiring.clock())
    try:
        if waiting is None:
            held = is_held_for_labels(record, asked.config, config.hold, wiring)
            if held is not None:
                return _held(batch, attempt, held, store)
        run: str = pipeline(asked.config)
        ended = load_run(store, run)
        is_waiting, proposed = ended.waiting_node is not None, asked.proposed
        if proposed is not None and not waits_for_answers(ended):
            freeze(proposed, store, wiring.clock())
            proposed = None
        if is_waiting:
            record_waiting_run(store, batch, attempt, run, wiring.clock(), proposed=proposed)
        else:
            record_success(store, batch, run, wiring.clock())
    except BaseException as error:  # stopped from outside, too
        record_end(batch, attempt, error, wiring)
        raise
    forget_outage(store, batch)
    return _waits(batch, ended) if is_waiting else BatchEnd(run, None)


def _configuration(batch: Batch, config: RetrainConfig, wiring: Wiring) -> WithExam:
    """The configuration of a new run of the batch, and the exam that it proposes."""
    store = wiring.store
    wanted = with_source(with_new_labels(config.pipeline, batch), f"{store.uri}/{batch.data}")
    if config.pairs == "auto":
        wanted = with_own_labels(wanted)
    wanted = with_earlier_labels(with_fresh_exam(wanted, batch, store), batch, store)
    return with_exam(wanted, batch, config, store, wiring.clock())


def _waiting_run(record: RetrainingBatch, wiring: Wiring) -> RunRecord | None:
    """The waiting run of the batch; None if there is none, its record cannot be read, or some of
    its prompts were withdrawn since."""
    if record.waiting is None:
        return None
    try:
        waiting = load_run(wiring.store, record.waiting.run)
        if with_withdrawals(waiting.config, wiring) == waiting.config:
            return waiting
        logger.warning(
            "batch %d: its waiting run %s used prompts that were withdrawn since, so it is run "
            "without them, with the configuration of this retraining",
            record.batch.number,
            waiting.run,
        )
        return None
    except (InputError, ValidationError) as error:
        logger.warning(
            "batch %d: its waiting run %s cannot be read, so it is run with the configuration of "
            "this retraining: %s",
            record.batch.number,
            record.waiting.run,
            error,
        )
        return None


def can_go_on(run: RunRecord, wiring: Wiring) -> bool:
    """Whether what the run waits for is there: people's answers, or a decision."""
    node = run.waiting_node
    if node is not None and waits_for_answers(run):
        return has_answers(wiring.store, node.artifact.rpartition("/")[2])
    return is_approval_decided(run.config, wiring)


def record_end(batch: Batch, attempt: Attempt, error: BaseException, wiring: Wiring) -> None:
    """Record how a run ended that did not succeed: stopped by a person, an outage, or a failure."""
    store, now = wiring.store, wiring.clock()
    name = type(error).__name__
    what = f"{name}: {error}" if isinstance(error, Exception) else f"the process was ended ({name})"
    try:
        if isinstance(error, KeyboardInterrupt | CancelledRun | StageCancelledError):
            take_back(store, batch, attempt)
        elif not isinstance(error, Exception) or is_outage(error):
            outage = record_outage(store, batch, attempt, what, now)
            logger.warning(
                "batch %d met an outage, which does not count; it is run again from %s on",
                batch.number,
                f"{outage.not_before:%Y-%m-%d %H:%M} UTC",
            )
        else:
            record_failure(store, batch, attempt, what)
            forget_outage(store, batch)
    except StoreError as failure:  # the store's own outage, whatever was first
        logger.warning("batch %d: its end could not be recorded: %s", batch.number, failure)
        note_outage(wiring.settings.home, store, batch, attempt, what, now)


def _held(batch: Batch, attempt: Attempt, audit: LabelAudit, store: Store) -> BatchEnd:
    """The batch waits for a person: nothing of it was run, so that no attempt counts."""
    take_back(store, batch, attempt)
    forget_outage(store, batch)
    sentence = held_sentence(batch, audit)
    logger.warning("%s", sentence)
    return BatchEnd("", sentence)


def _waits(batch: Batch, run: RunRecord) -> BatchEnd:
    node = run.waiting_node
    what = node.waiting.sentence if node and node.waiting else "waits"
    sentence = f"batch {batch.number} {what} (run {run.run})"
    logger.info("%s", sentence)
    return BatchEnd(run.run, sentence)


def with_source(config: PipelineConfig, source: str) -> PipelineConfig:
    """The configuration with another source of prompts."""
    return config.model_copy(update={"ingest": config.ingest.model_copy(update={"source": source})})


def with_own_labels(config: PipelineConfig) -> PipelineConfig:
    """The configuration that uses the data's own labels where there are any."""
    return config.model_copy(update={"pair": config.pair.model_copy(update={"own_labels": True})})
