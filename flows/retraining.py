"""Retraining: read new data, decide whether there is enough, and run the pipeline on it.

Unfinished batches come first (`flows/retrain_batch.py`). If the pipeline run of a batch failed or
died, the batch is run again, and complete artifacts are reused. After `max_attempts` such runs the
batch is set aside, so that one bad batch does not block all later data.
"""

import logging
import tempfile
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.auditing import audit, audit_due, audit_sentence
from flows.retrain_audit import held_sentence
from flows.retrain_batch import BatchEnd, run_batch
from flows.retrain_fresh import fresh_splitter
from flows.retrain_replay import replayed_rows
from flows.wiring import Wiring, connect
from infra.row_files import read_rows, write_rows
from pvar.incoming_rows import SeenRows
from pvar.ports import Store
from pvar.records import Prompt
from pvar.replay import EarlierRow
from pvar.retrain_decision import Batch, RetrainConfig, decide_retraining, fixed_opponent
from tasks.engine.lease import hold
from tasks.retraining.batch_states import (
    RetrainingBatch,
    read_records,
    record_vanished,
    to_run,
)
from tasks.retraining.batches import (
    LEASE,
    RowFiles,
    add_batch,
    read_batches,
    seen_rows,
    split_duplicates,
)
from tasks.retraining.incoming_files import fetch, keep_inspected, look
from tasks.retraining.outage_notes import record_noted_outages
from tasks.retraining.withdrawals import withdrawn_ids

logger = logging.getLogger(__name__)


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


def retrain_once(
    config: RetrainConfig, wiring: Wiring, before_flows: Callable[[], object] = lambda: None
) -> RetrainResult:
    """As the flow `retrain`, with these adapters and their clock. `wiring` must be that of the
    environment in all else: the runs of the pipeline connect by it.

    `before_flows` is called before each flow that is due: a batch's pipeline or an audit."""

    def run(record: RetrainingBatch) -> BatchEnd:
        before_flows()
        return run_batch(record, config, wiring)

    if fault := fixed_opponent(config):
        logger.warning("%s", fault)
    with hold(wiring.store, LEASE):
        unfinished = _unfinished(config, wiring, wiring.clock())
        earlier = [run(record) for record in unfinished.to_run]
        batch, result = _make_batch(config, wiring)
        ended = [*earlier, *([run(RetrainingBatch(batch))] if batch else [])]
        # Its errors count against no batch: it is due again at the next retraining.
        audited = None
        if (due := audit_due(config, wiring)) is not None:
            before_flows()
            audited = audit(due)
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
