"""Rounds: sample from the champion, select, train, pass the gate or not, and again.

Each round is a run of `pipeline` whose policy is the champion when the round begins. Its record is
written before (`flows/round_record.py`), so that an interrupted round goes on from the same model.
The same call goes on with the round that has not ended, and complete artifacts are reused.

If another model was promoted meanwhile, a round that has not ended could not be promoted any more:
it begins anew, from that model. A round that waits for a person ends the flow; the same call goes
on after the decision or the answers. After each round, `rounds/{name}/` in the store has the
results so far, as `rounds.json` and `rounds.html`.
"""

import logging
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow

from flows.pipeline import pipeline
from flows.placed_stages import is_complete
from flows.retrain_batch import can_go_on
from flows.round_record import (
    FOLDER,
    RESULTS,
    RoundRecord,
    pin_round,
    read_rounds,
    refuse_other_settings,
    results_json,
    rounds_result,
    save_round,
)
from flows.round_results import read_round
from flows.run_record import load_run
from flows.waiting_state import shown_as_waiting
from flows.wiring import Wiring, connect
from flows.withdrawn_prompts import with_withdrawals
from pvar.ports import Store
from pvar.references import Pinned
from pvar.round_rules import (
    RoundsConfig,
    RoundsResult,
    refuse_unfit_rounds,
    round_settings,
)
from tasks.engine.lease import hold
from tasks.graph import plan_nodes, train_keys
from tasks.report.rounds_page import render_rounds
from tasks.stages.promote import PROMOTE

logger = logging.getLogger(__name__)


@flow(
    name="rounds",
    description="Run the pipeline again and again, each time from the promoted model.",
    persist_result=False,
)
def rounds(config: RoundsConfig) -> RoundsResult:
    """Run rounds until one of their bounds is reached, and return the results of all of them.

    Raises LeaseError if rounds of this name are running in the same store, and ConfigError if
    earlier ones were made with other settings.

    Args:
        config: The number of rounds, what ends them early, and the pipeline.
    """
    refuse_unfit_rounds(config.pipeline)
    wiring = connect()
    with hold(wiring.store, f"{FOLDER}/{config.series}/leases"):
        records = read_rounds(wiring.store, config.series)
        refuse_other_settings(records, config)
        result = rounds_result(records, config)
        if records:  # an interrupted flow may not have published its last round
            _publish(result, wiring.store)
        while result.end is None:
            record = _advance(records, config, wiring)
            records = [*records[: record.number - 1], record]
            result = rounds_result(records, config)
            _publish(result, wiring.store)
            if record.waiting is not None:
                return shown_as_waiting(result, record.waiting)
    logger.info("%s ended: %s", config.series, result.end.sentence)
    return result


def _advance(records: Sequence[RoundRecord], config: RoundsConfig, wiring: Wiring) -> RoundRecord:
    """Run the round that has not ended, or the next one, and record how it ended.

    A round that waits for a decision or for answers which are not there yet is returned as it is.
    """
    record = records[-1] if records and records[-1].result is None else None
    if record is None or _is_overtaken(record, wiring):
        record = _begin(len(records) + (record is None), records, config, wiring)
    elif record.waiting_run is not None and not _has_what_it_waits_for(record.waiting_run, wiring):
        return record
    store = wiring.store
    logger.info(
        "round %d of %d at most: from %s",
        record.number,
        config.rounds,
        Pinned.parse(record.config.policy).location,
    )
    run: str = pipeline(record.config.model_copy(update={"runtime": config.pipeline.runtime}))
    ended = load_run(store, run)
    if (node := ended.waiting_node) is not None:
        record = record.model_copy(update={"waiting": node.waiting, "waiting_run": run})
    else:
        first = next((each.result.pool for each in records if each.result is not None), None)
        result = read_round(record.number, ended, first, wiring)
        update = {"waiting": None, "waiting_run": None, "result": result}
        record = record.model_copy(update=update)
    save_round(store, config.series, record)
    return record


def _begin(
    number: int, records: Sequence[RoundRecord], config: RoundsConfig, wiring: Wiring
) -> RoundRecord:
    """Record a round before it starts, with what the champion is now."""
    settings = round_settings(config, number)
    first = records[0] if number > 1 else None
    record = RoundRecord(
        number=number,
        began_at=datetime.now(UTC),
        settings=settings,
        config=pin_round(settings, first, wiring),
    )
    save_round(wiring.store, config.series, record)
    return record


def _has_what_it_waits_for(run: str, wiring: Wiring) -> bool:
    """Whether the run can go on, or asks about a prompt that was withdrawn since: the same call
    then asks anew."""
    waiting = load_run(wiring.store, run)
    return can_go_on(waiting, wiring) or (
        with_withdrawals(waiting.config, wiring) != waiting.config
    )


def _is_overtaken(record: RoundRecord, wiring: Wiring) -> bool:
    """Whether the champion is neither the one with which the round began nor its own model, which
    is that of its configuration without what was withdrawn since."""
    config = with_withdrawals(record.config, wiring)
    champion = wiring.registry.champion(record.config.promote.model_name)
    if champion is None:
        return False
    opponent = Pinned.parse(config.evaluate.opponent).digest
    if champion.digest in (opponent, train_keys(config).root):
        return False
    if is_complete(plan_nodes(config)[PROMOTE.name], wiring):  # it was decided before
        return False
    logger.warning(
        "round %d begins anew: it was to be compared with %s, but the champion is version %d now",
        record.number,
        opponent,
        champion.version,
    )
    return True


def _publish(result: RoundsResult, store: Store) -> None:
    """Write the results so far to the store."""
    files = {
        RESULTS: results_json(result),
        "rounds.html": render_rounds(result).encode(),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.write_bytes(content)
            store.upload(path, f"{FOLDER}/{result.name}/{name}")
