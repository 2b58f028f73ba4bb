"""Retraining: read new data, decide whether there is enough, and run the pipeline on it.

Unfinished batches come first. If the pipeline run of a batch failed or died, the batch is run
again, and complete artifacts are reused. After `max_attempts` such runs the batch is set aside, so
that one bad batch does not block all later data. An attempt is recorded before its run starts,
because a run that is killed (out of memory) cannot record it.

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
import tempfile
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prefect import flow
from prefect.exceptions import CancelledRun
from pydantic import BaseModel, ConfigDict, ValidationError

from flows.approval import is_approval_decided
from flows.auditing import audit_if_due, audit_sentence
from flows.pipeline import pipeline
from flows.retrain_audit import held_sentence, is_held_for_labels, with_new_labels
from flows.retrain_exam import WithExam, freeze, with_exam
from flows.retrain_fresh import fresh_splitter, with_fresh_exam
from flows.retrain_labels import with_earlier_labels
from flows.retrain_replay import replayed_rows
from flows.retrain_resume import resumed, waits_for_answers
from flows.run_record import RunRecord, load_run
from flows.wiring import Wiring, connect
from flows.withdrawn_prompts import with_withdrawals
from infra.outages import is_outage
from infra.row_files import read_rows, write_rows
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, InputError, StageCancelledError, StoreError
from pvar.incoming_rows import SeenRows
from pvar.ports import Store
from pvar.records import Prompt
from pvar.replay import EarlierRow
from pvar.retrain_decision import Batch, RetrainConfig, decide_retraining, fixed_opponent
from tasks.engine.lease import hold
from tasks.retraining.batch_states import (
    RetrainingBatch,
    forget_outage,
    read_records,
    record_outage,
    record_vanished,
    to_run,
)
from tasks.retraining.batches import (
    Attempt,
    RowFiles,
    add_batch,
    begin_attempt,
    read_batches,
    record_failure,
    record_success,
    record_waiting_run,
    seen_rows,
    split_duplicates,
    take_back,
)
from tasks.retraining.incoming_files import fetch, keep_inspected, look
from tasks.retraining.label_audits import LabelAudit
from tasks.retraining.outage_notes import note_outage, record_noted_outages
from tasks.retraining.withdrawals import withdrawn_ids
from tasks.stages.annotate import has_answers

logger = logging.getLogger(__name__)

LEASE = "retrain/leases"


class RetrainResult(BaseModel):
    """The result of a retraining."""

    model_config = ConfigDict(frozen=True)

    runs: tuple[str, ...]
    """Pipeline runs that succeeded, of unfinished earlier batches and of the new batch."""
    batch: int | None
    """Number of the new batch; None if no run was started on new data."""
    reasons: tuple[str, ...]
    """Why a run was started, or why none was."""
    quarantined: tuple[str, ...]
    """Keys of the files that were moved to quarantine."""
    waiting: tuple[str, ...] = ()
    """One sentence per batch that waits: what it waits for and how to continue."""
    postponed: tuple[str, ...] = ()
    """One sentence per batch that pauses after an outage."""
    audited: str | None = None
    """What an audit found that was due; None if none was."""


class _Ended(NamedTuple):
    """How the run of a batch ended."""

    run: str
    waiting: str | None
    """A sentence about what it waits for; None if it does not wait."""


@flow(
    name="retrain",
    description="Read the incoming files and run the pipeline if there is enough new data.",
    persist_result=False,
)
def retrain(config: RetrainConfig) -> RetrainResult:
    """Run one retraining. Raises LeaseError if another one is running in the same store.

    Args:
        config: The incoming files, the conditions for retraining, and the pipeline.
    """
    return retrain_once(config, connect())


def retrain_once(config: RetrainConfig, wiring: Wiring) -> RetrainResult:
    """As the flow `retrain`, with these adapters and their clock. `wiring` must be that of the
    environment in all else: the runs of the pipeline connect by it."""
    if fault := fixed_opponent(config):
        logger.warning("%s", fault)
    with hold(wiring.store, LEASE):
        unfinished = _unfinished(config, wiring, wiring.clock())
        earlier = [_run(record, config, wiring) for record in unfinished.to_run]
        batch, result = _make_batch(config, wiring)
        ended = [*earlier, *([_run(RetrainingBatch(batch), config, wiring)] if batch else [])]
        # Its errors count against no batch: it is due again at the next retraining.
        audited = audit_if_due(config, wiring)
    return result.model_copy(
        update={
            "postponed": unfinished.postponed,
            "audited": audit_sentence(audited) if audited else None,
            "runs": tuple(each.run for each in ended if each.waiting is None),
            "waiting": (
                *unfinished.held,
                *(each.waiting for each in ended if each.waiting is not None),
            ),
        }
    )


class _Unfinished(NamedTuple):
    """Batches without a successful run, except those set aside."""

    to_run: list[RetrainingBatch]
    postponed: tuple[str, ...]
    """One sentence per batch that pauses after an outage."""
    held: tuple[str, ...]
    """One sentence per batch whose labels a person has to look at."""


def _unfinished(config: RetrainConfig, wiring: Wiring, now: datetime) -> _Unfinished:
    store = wiring.store
    records = record_noted_outages(wiring.settings.home, store)
    records = [record_vanished(store, record, now) for record in records]
    wanted = to_run(store, records, max_attempts=config.max_attempts, now=now)
    postponed = []
    for record in records:
        if record in wanted or record.done:
            continue
        number, attempts = record.batch.number, record.counted
        if attempts and (record.set_aside or len(attempts) >= config.max_attempts):
            logger.error(
                "batch %d is set aside: %d runs failed; last error: %s. To try again: "
                "pvar batches retry %d",
                number,
                len(attempts),
                attempts[-1].error,
                number,
            )
        elif record.outage is not None:
            postponed.append(
                f"batch {number} is not run before {record.outage.not_before:%Y-%m-%d %H:%M} UTC "
                f"(outages in a row: {record.outage.num_in_row}; the last: {record.outage.error}); "
                f"to run it now: pvar batches retry {number}"
            )
            logger.warning("%s", postponed[-1])
    held = tuple(
        held_sentence(record.batch, record.audit)
        for record in records
        if record.audit is not None and record.is_held and not record.set_aside
    )
    return _Unfinished(wanted, tuple(postponed), held)


def _make_batch(config: RetrainConfig, wiring: Wiring) -> tuple[Batch | None, RetrainResult]:
    """Read new files. If they are enough, make a batch of them, which the caller runs."""
    store = wiring.store
    row_files = RowFiles(read_rows, write_rows)
    with tempfile.TemporaryDirectory() as folder:
        batches, withdrawn = read_batches(store), withdrawn_ids(store)
        known = {file.version for batch in batches for file in (*batch.files, *batch.duplicates)}
        found = look(
            store,
            config.incoming,
            read_rows,
            known=known,
            scratch=Path(folder),
            seen=lambda: _seen(wiring, withdrawn, Path(folder)),
        )
        waiting = [each.file for each in split_duplicates(found.good, batches)[0]]
        last_batch_at = batches[-1].created_at if batches else None
        now = wiring.clock()
        decision = decide_retraining(config, waiting, last_batch_at, now)
        batch, good = None, list(found.good)
        if decision.start:
            good = fetch(store, good, Path(folder))
        if decision.start and split_duplicates(good, batches)[0]:
            batch = add_batch(
                store,
                good,
                batches,
                reasons=decision.reasons,
                now=now,
                row_files=row_files,
                scratch=Path(folder),
                source_field=config.pipeline.ingest.source_field,
                annotator_field=_annotator_field(config),
                replay=_replay(config, store, Path(folder)),
                withdrawn=withdrawn,
                split_off=fresh_splitter(config, store, Path(folder)),
            )
        keep_inspected(store, () if batch else (each.file for each in good))
    reasons = decision.reasons
    if decision.start and batch is None:
        reasons = ("no batch: no new row can be used yet, or the files changed (see log)", *reasons)
    logger.info("%s: %s", "retrain" if batch else "no run", "; ".join(reasons))
    return batch, RetrainResult(
        runs=(),
        batch=batch.number if batch else None,
        reasons=reasons,
        quarantined=tuple(each.key for each in found.quarantined),
    )


def _annotator_field(config: RetrainConfig) -> str | None:
    audit = config.pipeline.label_audit
    return None if audit is None else audit.annotator_field


def _seen(wiring: Wiring, withdrawn: Collection[str], scratch: Path) -> SeenRows:
    """What does not count as new. What was set aside does not count as seen: it may come again,
    corrected."""
    used = [each.batch for each in read_records(wiring.store) if each.set_aside is None]
    return seen_rows(wiring.store, used, read_rows, scratch)._replace(withdrawn=withdrawn)


def _replay(
    config: RetrainConfig, store: Store, scratch: Path
) -> Callable[[Sequence[Prompt]], list[EarlierRow]] | None:
    if config.replay is None:
        return None
    return partial(
        replayed_rows,
        store,
        read_records(store),
        config=config.replay,
        source_field=config.pipeline.ingest.source_field,
        scratch=scratch,
    )


def _run(record: RetrainingBatch, config: RetrainConfig, wiring: Wiring) -> _Ended:
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
            asked = _configuration(batch, config, store)
    except Exception as error:
        # The batch is not to blame for a gate that needs another exam.
        if waiting or not isinstance(error, ConfigError):
            _record_end(batch, begin_attempt(store, batch, wiring.clock()), error, wiring)
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
            freeze(proposed, store)
            proposed = None
        if is_waiting:
            record_waiting_run(store, batch, attempt, run, wiring.clock(), proposed=proposed)
        else:
            record_success(store, batch, run, wiring.clock())
    except BaseException as error:
        _record_end(batch, attempt, error, wiring)
        raise
    forget_outage(store, batch)
    return _waits(batch, ended) if is_waiting else _Ended(run, None)


def _configuration(batch: Batch, config: RetrainConfig, store: Store) -> WithExam:
    """The configuration of a new run of the batch, and the exam that it proposes."""
    wanted = with_source(with_new_labels(config.pipeline, batch), f"{store.uri}/{batch.data}")
    if config.pairs == "auto":
        wanted = with_own_labels(wanted)
    wanted = with_earlier_labels(with_fresh_exam(wanted, batch, store), batch, store)
    return with_exam(wanted, batch, config, store)


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


def _record_end(batch: Batch, attempt: Attempt, error: BaseException, wiring: Wiring) -> None:
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


def _held(batch: Batch, attempt: Attempt, audit: LabelAudit, store: Store) -> _Ended:
    """The batch waits for a person: nothing of it was run, so that no attempt counts."""
    take_back(store, batch, attempt)
    forget_outage(store, batch)
    sentence = held_sentence(batch, audit)
    logger.warning("%s", sentence)
    return _Ended("", sentence)


def _waits(batch: Batch, run: RunRecord) -> _Ended:
    node = run.waiting_node
    what = node.waiting.sentence if node and node.waiting else "waits"
    sentence = f"batch {batch.number} {what} (run {run.run})"
    logger.info("%s", sentence)
    return _Ended(run.run, sentence)


def with_source(config: PipelineConfig, source: str) -> PipelineConfig:
    """The configuration with another source of prompts."""
    return config.model_copy(update={"ingest": config.ingest.model_copy(update={"source": source})})


def with_own_labels(config: PipelineConfig) -> PipelineConfig:
    """The configuration that uses the data's own labels where there are any."""
    return config.model_copy(update={"pair": config.pair.model_copy(update={"own_labels": True})})
