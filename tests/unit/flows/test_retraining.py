"""What a retraining changes in the configuration of its pipeline, and which run counts."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import retraining
from flows.retrain_exam import WithExam
from flows.retraining import with_own_labels
from flows.run_record import RunRecord, load_run, save_run
from infra.row_files import read_rows
from pvar.config import PipelineConfig
from pvar.digest import prompt_id
from pvar.errors import DamagedError, PromotionError, StageCancelledError
from pvar.ports import Store
from pvar.records import Message, Row
from pvar.references import replace_references
from pvar.replay import ReplayConfig
from pvar.retrain_decision import Batch, RetrainConfig
from tasks.engine.lease import utc_now
from tasks.graph import plan_nodes
from tasks.retraining.batch_states import RetrainingBatch, read_records, retry_batch
from tasks.retraining.batches import begin_attempt, folder_of, record_waiting_run, to_json
from tasks.retraining.withdrawals import withdraw

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
OLD, NEW = PipelineConfig(policy="org/old"), PipelineConfig(policy="org/new")
CONFIG = RetrainConfig(max_attempts=2, pipeline=NEW)


def test_labels_that_arrive_change_the_pairs_and_nothing_before_them() -> None:
    implicit = {"kind": "implicit", "policy": "org/p", "reference": "org/r"}
    settings = {
        "score": {"reward_models": [{"kind": "vader"}, implicit]},
        "select": {"strategy": "implicit_gap_small"},  # measured on the pairs of sampled answers
    }
    config = replace_references(
        PipelineConfig.model_validate(settings), lambda each: f"{each.text}#sha256-{each.text}"
    )
    before, after = plan_nodes(config), plan_nodes(with_own_labels(config))
    changed = {name for name, node in before.items() if node.keys != after[name].keys}
    assert "pair" in changed
    assert changed.isdisjoint({"ingest", "sample", "score-vader", "score-implicit", "select"})


@pytest.fixture
def policies(file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Policies of the runs; every one succeeds, and a run that waited is decided."""
    used: list[str] = []

    def succeed(config: PipelineConfig) -> str:
        used.append(config.policy)
        return save(file_store, f"20260311-{len(used)}", config)

    wiring = SimpleNamespace(
        store=file_store,
        settings=SimpleNamespace(home=tmp_path),
        clock=utc_now,
        source_rows=lambda _: iter([Row(1, {"prompt": "Name a river."})]),
    )
    monkeypatch.setattr(retraining, "connect", lambda: wiring)
    monkeypatch.setattr(retraining, "with_exam", lambda config, *_: WithExam(config))
    monkeypatch.setattr(retraining, "is_approval_decided", lambda *_: True)
    monkeypatch.setattr(retraining, "pipeline", succeed)
    return used


def save(store: Store, run: str, config: PipelineConfig) -> str:
    record = RunRecord(
        run=run,
        started_at=NOW,
        preset=None,
        config=config,
        mlflow_run="",
        mlflow_experiment="",
        nodes=(),
    )
    save_run(store, record)
    return run


def make_batch(store: Store, number: int = 1) -> Batch:
    batch = Batch(
        number=number, created_at=NOW, data="retrain/data/x", files=(), duplicates=(), reasons=()
    )
    store.write(f"{folder_of(number)}/batch.json", to_json(batch))
    return batch


def make_waiting(store: Store, run: str) -> Batch:
    batch = make_batch(store)
    record_waiting_run(store, batch, begin_attempt(store, batch, NOW), run, NOW)
    return batch


def the_record(store: Store) -> RetrainingBatch:
    return read_records(store)[0]


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


def test_a_run_that_waited_is_resumed_with_its_own_configuration(
    file_store: Store, policies: list[str]
) -> None:
    make_waiting(file_store, save(file_store, "20260310-1", OLD))
    assert len(retraining.retrain.fn(CONFIG).runs) == 1
    assert policies == ["org/old"]


def test_a_run_that_waits_is_given_up_if_its_prompts_are_withdrawn(
    file_store: Store, policies: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    make_waiting(file_store, save(file_store, "20260310-1", OLD))
    withdraw(file_store, ["f" * 16], reason=None, now=NOW)  # its data do not have this one
    assert len(retraining.retrain.fn(CONFIG).runs) == 1
    waiting = make_batch(file_store, 2)
    attempt = begin_attempt(file_store, waiting, NOW)
    record_waiting_run(file_store, waiting, attempt, "20260310-1", NOW)
    river = prompt_id([Message("user", "Name a river.")])
    withdraw(file_store, [river], reason=None, now=NOW)
    assert len(retraining.retrain.fn(CONFIG).runs) == 1
    assert policies == ["org/old", "org/new"]
    assert "batch 2: its waiting run 20260310-1 used prompts that were withdrawn" in caplog.text


@pytest.mark.parametrize("content", [None, b'{"run": "20260310-1", "of": "another release"}'])
def test_a_waiting_run_that_cannot_be_read_holds_nothing_back(
    file_store: Store, policies: list[str], content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    make_waiting(file_store, "20260310-1")
    if content is not None:
        file_store.write("runs/20260310-1.json", content)
    make_batch(file_store, 2)
    assert len(retraining.retrain.fn(CONFIG).runs) == 2
    assert policies == ["org/new", "org/new"]
    assert "batch 1: its waiting run 20260310-1 cannot be read" in caplog.text


def test_an_approval_after_another_promotion_is_set_aside_and_then_run_anew(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_waiting(file_store, save(file_store, "20260310-1", OLD))
    stale = PromotionError("version 2 was compared with start-1, but the champion is version 3")
    with monkeypatch.context() as patched:
        patched.setattr(retraining, "pipeline", raising(stale))
        for _ in range(2):
            with pytest.raises(PromotionError):
                retraining.retrain.fn(CONFIG)
        assert retraining.retrain.fn(CONFIG).runs == ()
    assert the_record(file_store).state(is_retraining=False) == "set_aside"
    retry_batch(file_store, 1, NOW)
    assert len(retraining.retrain.fn(CONFIG).runs) == 1
    assert policies == ["org/new"]


def test_an_error_before_a_waiting_run_is_resumed_counts_as_well(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_waiting(file_store, save(file_store, "20260310-1", OLD))
    make_batch(file_store, 2)
    damaged = DamagedError("the decision is not valid")
    with monkeypatch.context() as patched:
        patched.setattr(retraining, "is_approval_decided", raising(damaged))
        for _ in range(2):
            with pytest.raises(DamagedError):
                retraining.retrain.fn(CONFIG)
        assert len(retraining.retrain.fn(CONFIG).runs) == 1  # of the second batch
    assert the_record(file_store).state(is_retraining=False) == "set_aside"
    assert policies == ["org/new"]


def test_a_placed_stage_that_a_person_cancelled_leaves_the_batch_as_it_was(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(file_store)
    stopped = StageCancelledError("sample on sample/process: run sample is Cancelled: no message")
    monkeypatch.setattr(retraining, "pipeline", raising(stopped))
    with pytest.raises(StageCancelledError):
        retraining.retrain.fn(CONFIG)
    assert the_record(file_store) == RetrainingBatch(batch)


def test_a_fixed_opponent_of_an_earlier_deployment_is_named_in_the_log(
    policies: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    fixed = PipelineConfig.model_validate({"evaluate": {"opponent": "org/old"}})
    with caplog.at_level(logging.WARNING):
        retraining.retrain.fn(RetrainConfig(pipeline=fixed))
    assert "evaluate.opponent is org/old" in caplog.text


def test_a_fixed_policy_and_everything_replayed_is_a_start_from_the_base_on_all_data(
    file_store: Store, policies: list[str], tmp_path: Path
) -> None:
    always = RetrainConfig(
        min_new_pairs=1, replay=ReplayConfig(), pipeline=PipelineConfig(policy="org/base")
    )
    trained_on: list[set[object]] = []
    for name in ("a", "b", "c"):
        row = {"prompt": name, "chosen": "yes", "rejected": "no"}
        file_store.write(f"incoming/{name}.jsonl", json.dumps(row).encode())
        (run,) = retraining.retrain.fn(always).runs
        source = load_run(file_store, run).config.ingest.source
        data = tmp_path / f"{name}.jsonl.gz"
        file_store.download(source.removeprefix(f"{file_store.uri}/"), data)
        rows = [row.fields for row in read_rows(data) if isinstance(row, Row)]
        assert {fields["chosen"] for fields in rows} == {"yes"}  # labels, too
        trained_on.append({fields["prompt"][0]["content"] for fields in rows})  # type: ignore[index]
    assert policies == ["org/base", "org/base", "org/base"]
    assert trained_on == [{"a"}, {"a", "b"}, {"a", "b", "c"}]
