"""The batches of a backtested policy, read from its store and its MLflow."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from flows.backtest_folder import Position
from flows.run_record import RunRecord, load_run
from flows.version_results import Results, VersionResults, version_results
from flows.wiring import Wiring
from pvar.artifacts import Summary
from pvar.backtest_config import HistoryFile, PolicyPlan
from pvar.backtest_result import BacktestedPolicy, Fate, SimulatedBatch, SimulatedRate
from pvar.evaluation.label_audit import AgreementCounts, total_agreement
from pvar.ports import Store
from tasks.engine.artifact import open_artifact
from tasks.engine.work_folders import work_folder
from tasks.retraining.batch_states import RetrainingBatch, read_records
from tasks.retraining.incoming_files import QUARANTINE, Quarantined
from tasks.stages.benchmark import BENCHMARK, CHALLENGER
from tasks.stages.promote import PROMOTE, PromotionRecord, read_decision

_BENCHMARK_PREFIX = f"{BENCHMARK.name}-"


def read_policy(
    home: Path, plan: PolicyPlan, position: Position, wiring: Wiring
) -> BacktestedPolicy:
    """A policy with its batches so far."""
    records = read_records(wiring.store)
    model_name = plan.config.pipeline.promote.model_name
    results = version_results(wiring.registry.versions(model_name))
    versions = {each.version: each for each in results}
    batches: list[SimulatedBatch] = []
    counted: set[str] = set()
    with work_folder(wiring.settings.home, "backtest") as scratch:
        seconds = _seconds_by_data(wiring.store)
        for record in records:
            found = _batch(record, seconds.get(_name(record.batch.data)))
            if record.done is not None:
                run = load_run(wiring.store, record.done.run)
                found = _with_run(found, run, versions, counted, wiring, scratch)
            batches.append(found)
    quarantined = _quarantined(wiring)
    taken = {each.key for each in quarantined} | {
        file.key for each in records for file in (*each.batch.files, *each.batch.duplicates)
    }
    now = plan.looks[position.num_looks_done - 1] if position.num_looks_done else None
    return BacktestedPolicy(
        name=plan.name,
        settings=plan.settings,
        folder=str(home),
        asks_person=plan.asks_person,
        num_looks=len(plan.looks),
        num_looks_done=position.num_looks_done,
        batches=tuple(batches),
        waiting=position.waiting,
        quarantined=tuple(f"{each.key}: {each.reason}" for each in quarantined),
        unused_files=tuple(
            file.key
            for file in plan.files
            if now is not None and file.arrives_at <= now and _incoming_key(file, plan) not in taken
        ),
    )


def _incoming_key(file: HistoryFile, plan: PolicyPlan) -> str:
    return f"{plan.config.incoming.rstrip('/')}/{file.key}"


def _quarantined(wiring: Wiring) -> list[Quarantined]:
    return [
        Quarantined.model_validate_json(wiring.store.read(info.key))
        for info in wiring.store.list(f"{QUARANTINE}/")
        if info.key.endswith(".reason.json")
    ]


def _seconds_by_data(store: Store) -> dict[str, float]:
    """Time of the stages of all runs, also those that failed or were killed, by the name of the
    object with their batch's data: its address is written in another way once it is pinned."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for info in store.list("runs/"):
        if info.key.endswith(".json"):
            with suppress(ValidationError):  # of another version of pvar
                run = RunRecord.model_validate_json(store.read(info.key))
                source = run.config.ingest.source
                name = _name(source.rpartition("#")[0] or source)
                seconds[name] += sum(node.seconds or 0.0 for node in run.nodes)
    return dict(seconds)


def _name(address: str) -> str:
    return address.rpartition("/")[2]


def _batch(record: RetrainingBatch, seconds: float | None) -> SimulatedBatch:
    """What is known of a batch without its run."""
    batch = record.batch
    return SimulatedBatch(
        number=batch.number,
        made_at=batch.created_at,
        files=tuple(file.key for file in batch.files),
        num_rows=batch.num_pairs,
        num_labelled=batch.num_labelled,
        num_replayed=sum(each.num_rows for each in batch.replayed),
        why_made=batch.reasons,
        fate=_fate(record),
        why=tuple(attempt.error for attempt in record.attempts if attempt.error),
        agreement=batch_agreement(record),
        seconds=seconds,
    )


def batch_agreement(record: RetrainingBatch) -> dict[str, float]:
    """Agreement of each model with the batch's labels, over all sources."""
    by_model: dict[str, list[AgreementCounts]] = {}
    for counts in record.audit.counts if record.audit is not None else ():
        if counts.grouping == "source":
            name = counts.model if counts.kind == "reward_model" else counts.kind
            by_model.setdefault(name, []).append(counts)
    totals = {name: total_agreement(counts, "all") for name, counts in by_model.items()}
    return {name: total.agreement for name, total in totals.items() if total.agreement is not None}


def _fate(record: RetrainingBatch) -> Fate:
    """What became of a batch whose run did not succeed."""
    state = record.state(is_retraining=False)
    if state == "set_aside":
        return "set aside"
    if state.startswith("waiting_for_") and state != "waiting_for_run":
        return "held"
    return "failed" if record.attempts else "not run"


def _with_run(
    batch: SimulatedBatch,
    run: RunRecord,
    versions: dict[int, VersionResults],
    counted: set[str],
    wiring: Wiring,
    scratch: Path,
) -> SimulatedBatch:
    """The batch with the results of its run. `counted` has the artifacts of earlier batches, and
    is extended: what is used again costs nothing."""
    artifacts = {node.name: node.artifact for node in run.nodes}
    summaries = {
        name: open_artifact(wiring.store, *_stage_and_digest(root), scratch).manifest.summary
        for name, root in artifacts.items()
    }
    new = [summaries[name] for name, root in artifacts.items() if root not in counted]
    counted |= set(artifacts.values())
    promote = open_artifact(wiring.store, *_stage_and_digest(artifacts[PROMOTE.name]), scratch)
    decision = read_decision(promote)
    results = versions.get(decision.version)
    changes: dict[str, object] = {
        "fate": "promoted" if decision.promoted else "not promoted",
        "why": () if decision.promoted else tuple(_failed_checks(decision)),
        "version": decision.version,
        "look": None if decision.look is None else decision.look.sentence,
        "benchmarks": dict(_benchmark_scores(summaries)),
        "num_tokens": _total(new, "num_tokens"),
        "usd": _total(new, "usd"),
        "run": run.run,
    }
    return batch.model_copy(update=changes | (_measured(results) if results else {}))


def _measured(results: VersionResults) -> dict[str, object]:
    exam, conditions = results.curve
    return {
        "curve": None if exam is None else (exam, conditions or ""),
        "against_champion": _rate(results.against_opponent),
        "against_first": _rate(results.against_first),
        "ability": results.ability,
        "ability_change_since_first": results.ability_change_since_first,
    }


def _rate(results: Results) -> SimulatedRate | None:
    rate, lower, upper = results
    if rate is None or lower is None or upper is None:
        return None
    return SimulatedRate(rate=rate, lower=lower, upper=upper)


def _failed_checks(decision: PromotionRecord) -> Iterator[str]:
    for name, value, bound, passed in decision.checks:
        if not passed:
            yield f"{name} is {'missing' if value is None else f'{value:.3f}'}, bound {bound:g}"
    if decision.passed:
        yield "promote.mode is never"


def _benchmark_scores(summaries: dict[str, Summary]) -> Iterator[tuple[str, float]]:
    for name, summary in summaries.items():
        score = summary.get(f"{CHALLENGER}_score")
        if name.startswith(_BENCHMARK_PREFIX) and isinstance(score, int | float):
            yield name.removeprefix(_BENCHMARK_PREFIX), float(score)


def _total(summaries: Collection[Summary], figure: str) -> int | float | None:
    """The sum of a figure over the stages that have it; None if none has."""
    values = [summary[figure] for summary in summaries if summary.get(figure) is not None]
    known = [value for value in values if isinstance(value, int | float)]
    return sum(known) if known else None


def _stage_and_digest(root: str) -> tuple[str, str]:
    stage, _, digest = root.partition("/")
    return stage, digest
