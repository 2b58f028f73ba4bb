"""The labels of earlier batches for the reward model: of batches that are done and not refused."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.retrain_labels import with_earlier_labels
from flows.retrain_replay import replayed_rows
from flows.run_record import NodeRecord, RunRecord, save_run
from infra.promotion_history import PromotionHistory
from infra.row_files import read_rows, write_rows
from pvar.config import PipelineConfig
from pvar.digest import prompt_id
from pvar.ports import Store
from pvar.records import Message, Row
from pvar.replay import ReplayConfig
from pvar.retrain_decision import Batch
from pvar.reward_training import RewardTrainingConfig
from tasks.retraining.batch_states import read_records
from tasks.retraining.batches import RowFiles, add_batch, read_batches, record_success
from tasks.retraining.incoming_files import fetch, look
from tasks.retraining.withdrawals import withdraw
from tasks.stages.adopt import NOTHING_TRAINED, AdoptionRecord
from tasks.stages.promote import DECISION
from tests.artifacts import put_artifact

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
LEARNS = PipelineConfig(reward_training=RewardTrainingConfig(model="org/reward"))


def take_up(store: Store, scratch: Path, **chosen: str | None) -> Batch:
    """A batch of these prompts, with the preferred answer; None has no label."""
    batches = read_batches(store)
    rows = [
        {"prompt": prompt} | ({} if answer is None else {"chosen": answer, "rejected": "no"})
        for prompt, answer in chosen.items()
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    store.write(f"incoming/{len(batches)}.jsonl", lines.encode())
    known = {file.version for batch in batches for file in batch.files}
    found = look(store, "incoming", read_rows, known=known, scratch=scratch)
    batch = add_batch(
        store,
        fetch(store, found.good, scratch),
        batches,
        reasons=("enough",),
        now=NOW,
        row_files=RowFiles(read_rows, write_rows),
        scratch=scratch,
    )
    assert batch is not None
    return batch


def end(store: Store, batch: Batch, *, adopted: bool | None, **changes: Any) -> str:
    """Its run succeeded, and adopted a reward model, or refused it, or has no such stage (None).

    `changes` are to the decision.
    """
    run = f"run-{batch.number}"
    nodes = [NodeRecord(name="promote", artifact="promote/0123456789abcdef")]
    if adopted is not None:
        record = AdoptionRecord(
            passed=adopted, checks=(("accuracy_lower", 0.5, 0.6, adopted),),
            reasons=() if adopted else ("labels may be wrong",), note="", figures={},
            model_name="r", version=batch.number, previous_version=None, opponent="o",
        ).model_copy(update=changes)  # fmt: skip
        files = {DECISION: record.model_dump_json().encode()}
        keys = put_artifact(store, "adopt", config={"run": run}, files=files)
        nodes.append(NodeRecord(name="adopt", artifact=keys.root))
    save_run(
        store,
        RunRecord(
            run=run, started_at=NOW, preset=None, config=LEARNS, mlflow_run="m",
            mlflow_experiment="e", nodes=tuple(nodes),
        ),
    )  # fmt: skip
    record_success(store, batch, run, NOW)
    return run


def earlier(store: Store, batch: Batch, scratch: Path) -> dict[str, str]:
    """Prompt → preferred answer of the labels that the batch's run also learns from."""
    training = with_earlier_labels(LEARNS, batch, store).reward_training
    assert training is not None
    if training.earlier is None:
        return {}
    store.download(training.earlier.removeprefix(f"{store.uri}/"), scratch / "labels.jsonl.gz")
    rows = [each.fields for each in read_rows(scratch / "labels.jsonl.gz") if isinstance(each, Row)]
    return {row["prompt"][0]["content"]: str(row["chosen"]) for row in rows}  # type: ignore[index]


def test_labels_of_other_batches_that_are_done_are_learned_too(
    file_store: Store, tmp_path: Path
) -> None:
    first = take_up(file_store, tmp_path, a="old", b="yes", unlabelled=None)
    assert with_earlier_labels(LEARNS, first, file_store) == LEARNS
    end(file_store, first, adopted=None)  # before the reward model was trained at all
    second = take_up(file_store, tmp_path, a="new", c="yes")
    end(file_store, second, adopted=True)
    running = take_up(file_store, tmp_path, d="yes")
    third = take_up(file_store, tmp_path, e="yes")
    assert earlier(file_store, third, tmp_path) == {"a": "new", "b": "yes", "c": "yes"}
    assert earlier(file_store, running, tmp_path) == earlier(file_store, third, tmp_path)
    # A run that is repeated names the same object.
    again = with_earlier_labels(LEARNS, third, file_store)
    assert again == with_earlier_labels(LEARNS, third, file_store)
    assert with_earlier_labels(again, running, file_store) == again
    assert with_earlier_labels(PipelineConfig(), third, file_store) == PipelineConfig()


def test_labels_with_which_a_reward_model_was_refused_do_not_come_back(
    file_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clean = take_up(file_store, tmp_path, a="yes")
    end(file_store, clean, adopted=True)
    poisoned = take_up(file_store, tmp_path, a="no, then", b="yes")
    end(file_store, poisoned, adopted=False)
    unknown = take_up(file_store, tmp_path, c="yes")
    run = end(file_store, unknown, adopted=True)
    file_store.delete(f"runs/{run}.json")
    batch = take_up(file_store, tmp_path, d="yes")
    assert earlier(file_store, batch, tmp_path) == {"a": "yes"}
    assert "batch 3: its labels are left out, because it is not known" in caplog.text


def test_labels_that_no_gate_refused_are_learned_later(file_store: Store, tmp_path: Path) -> None:
    nothing = {"checks": (), "reasons": (NOTHING_TRAINED,), "version": None}
    stale = {"checks": (("accuracy_lower", 0.7, 0.6, True),), "reasons": ("adopted meanwhile",)}
    end(file_store, take_up(file_store, tmp_path, a="yes"), adopted=False, **nothing)
    end(file_store, take_up(file_store, tmp_path, b="yes"), adopted=False, **stale)
    third = take_up(file_store, tmp_path, c="yes")
    assert earlier(file_store, third, tmp_path) == {"a": "yes", "b": "yes"}


def test_labels_of_a_reward_model_that_was_rolled_back_do_not_come_back(
    file_store: Store, tmp_path: Path
) -> None:
    end(file_store, take_up(file_store, tmp_path, a="yes"), adopted=True)
    end(file_store, take_up(file_store, tmp_path, a="wrong", b="wrong"), adopted=True)
    third = take_up(file_store, tmp_path, c="yes")
    assert earlier(file_store, third, tmp_path) == {"a": "wrong", "b": "wrong"}
    history = PromotionHistory(file_store, "r")
    for kind, to in (("promotion", 1), ("promotion", 2), ("rollback", 1)):
        history.append(history.newest(), kind, to, by="me", reason="")
    assert earlier(file_store, third, tmp_path) == {"a": "yes"}


def test_rows_whose_labels_were_refused_are_replayed_without_them(
    file_store: Store, tmp_path: Path
) -> None:
    end(file_store, take_up(file_store, tmp_path, a="yes"), adopted=True)
    end(file_store, take_up(file_store, tmp_path, b="wrong"), adopted=False)
    run = end(file_store, take_up(file_store, tmp_path, c="unknown"), adopted=True)
    file_store.delete(f"runs/{run}.json")
    rows = replayed_rows(
        file_store, read_records(file_store), [], ReplayConfig(order="newest"),
        source_field=None, scratch=tmp_path,
    )  # fmt: skip
    assert [(row.prompt.messages[0].content, row.prompt.chosen) for row in rows] == [
        ("c", "unknown"), ("b", None), ("a", "yes"),
    ]  # fmt: skip
    assert {row.prompt.rejected for row in rows} == {"no", None}


def test_a_withdrawn_label_is_not_learned(file_store: Store, tmp_path: Path) -> None:
    end(file_store, take_up(file_store, tmp_path, a="yes", b="yes"), adopted=None)
    second = take_up(file_store, tmp_path, c="yes")
    assert earlier(file_store, second, tmp_path) == {"a": "yes", "b": "yes"}
    withdraw(file_store, [prompt_id([Message("user", "a")])], reason=None, now=NOW)
    assert earlier(file_store, second, tmp_path) == {"b": "yes"}
