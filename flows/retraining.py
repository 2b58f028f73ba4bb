"""Retraining: read new data, decide whether there is enough, and run the pipeline on it.

Unfinished batches come first. If the pipeline run of a batch failed or died, the batch is run
again, and complete artifacts are reused. After `max_attempts` such runs the batch is set aside, so
that one bad batch does not block all later data. An attempt is recorded before its run starts,
because a run that is killed (out of memory) cannot record it. An attempt does not count if its run
was stopped from outside and could report that (Ctrl-C, a cancelled run, a worker shutdown): the
batch did not cause it.

A batch whose run waits for the approval of its model is neither done nor failed. It is run again
after the decision, with the configuration of that run, so that complete artifacts are reused.
"""

import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.approval import is_approval_decided
from flows.pipeline import pipeline
from flows.retrain_exam import with_exam
from flows.run_record import load_run
from flows.wiring import Wiring, connect
from infra.row_files import read_rows, write_rows
from pvar.config import PipelineConfig
from pvar.ports import Store
from pvar.retrain_decision import Batch, RetrainConfig, decide_retraining
from tasks.engine.lease import hold
from tasks.retraining.batches import (
    RowFiles,
    add_batch,
    attempts_of,
    begin_attempt,
    is_done,
    read_batches,
    record_failure,
    record_success,
    record_waiting_run,
    split_duplicates,
    take_back,
    waiting_run_of,
)
from tasks.retraining.incoming_files import look

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
    """One sentence per batch whose run waits: what it waits for and how to continue."""


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
    wiring = connect()
    with hold(wiring.store, LEASE):
        earlier = [_run(batch, config, wiring) for batch in _undone(wiring.store, config)]
        batch, result = _make_batch(config, wiring)
        ended = [*earlier, *([_run(batch, config, wiring)] if batch else [])]
    return result.model_copy(
        update={
            "runs": tuple(each.run for each in ended if each.waiting is None),
            "waiting": tuple(each.waiting for each in ended if each.waiting is not None),
        }
    )


def _undone(store: Store, config: RetrainConfig) -> list[Batch]:
    """Batches without a successful run, except those set aside."""
    undone = []
    for batch in read_batches(store):
        if is_done(store, batch):
            continue
        attempts = attempts_of(store, batch)
        if len(attempts) < config.max_attempts:
            undone.append(batch)
        else:
            logger.error(
                "batch %d is set aside: %d runs failed; last error: %s. To try again, delete "
                "its attempt-*.json in %s/retrain/batches/%06d",
                batch.number,
                len(attempts),
                attempts[-1].error or "none, the run was killed (out of memory?)",
                store.uri,
                batch.number,
            )
    return undone


def _make_batch(config: RetrainConfig, wiring: Wiring) -> tuple[Batch | None, RetrainResult]:
    """Read new files. If they are enough, make a batch of them, which the caller runs."""
    store = wiring.store
    row_files = RowFiles(read_rows, write_rows)
    with tempfile.TemporaryDirectory() as folder:
        batches = read_batches(store)
        known = {file.version for batch in batches for file in (*batch.files, *batch.duplicates)}
        found = look(store, config.incoming, read_rows, known=known, scratch=Path(folder))
        waiting = [each.file for each in split_duplicates(found.good, batches)[0]]
        last_batch_at = batches[-1].created_at if batches else None
        now = datetime.now(UTC)
        decision = decide_retraining(config, waiting, last_batch_at, now)
        batch = None
        if decision.start:
            batch = add_batch(
                store,
                found.good,
                batches,
                reasons=decision.reasons,
                now=now,
                row_files=row_files,
                scratch=Path(folder),
            )
    logger.info("%s: %s", "retrain" if decision.start else "no run", "; ".join(decision.reasons))
    return batch, RetrainResult(
        runs=(),
        batch=batch.number if batch else None,
        reasons=decision.reasons,
        quarantined=tuple(each.key for each in found.quarantined),
    )


def _run(batch: Batch, config: RetrainConfig, wiring: Wiring) -> _Ended:
    """Run the pipeline on a batch and record how the run ended. Errors of the run are raised.

    A waiting run is resumed only when it can continue, with its own configuration.
    """
    store = wiring.store
    wanted = with_source(config.pipeline, f"{store.uri}/{batch.data}")
    if waiting := waiting_run_of(store, batch):
        wanted = load_run(store, waiting.run).config
        if not is_approval_decided(wanted, wiring):
            return _waits(batch, waiting.run, wiring)
    logger.info("batch %d: %d pairs of %d files", batch.number, batch.num_pairs, len(batch.files))
    attempt = begin_attempt(store, batch, datetime.now(UTC))
    try:
        run: str = pipeline(wanted if waiting else with_exam(wanted, batch, config.exam, store))
    except Exception as error:
        record_failure(store, batch, attempt, f"{type(error).__name__}: {error}")
        raise
    except BaseException:  # stopped from outside
        take_back(store, batch, attempt)
        raise
    if load_run(store, run).waiting_node is not None:
        record_waiting_run(store, batch, attempt, run, datetime.now(UTC))
        return _waits(batch, run, wiring)
    record_success(store, batch, run, datetime.now(UTC))
    return _Ended(run, None)


def _waits(batch: Batch, run: str, wiring: Wiring) -> _Ended:
    node = load_run(wiring.store, run).waiting_node
    what = node.waiting.sentence if node and node.waiting else "waits"
    sentence = f"batch {batch.number} {what} (run {run})"
    logger.info("%s", sentence)
    return _Ended(run, sentence)


def with_source(config: PipelineConfig, source: str) -> PipelineConfig:
    """The configuration with another source of prompts."""
    return config.model_copy(update={"ingest": config.ingest.model_copy(update={"source": source})})
