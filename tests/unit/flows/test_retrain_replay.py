"""A new batch with rows of earlier ones: from batches that are done, each row once."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from flows import retrain_replay
from flows.retrain_replay import replayed_rows
from infra.row_files import read_rows, write_rows
from pvar.digest import prompt_id
from pvar.ports import Store
from pvar.records import Message, Row
from pvar.replay import ReplayConfig
from pvar.retrain_decision import Batch, Replayed
from tasks.retraining.batch_states import read_records
from tasks.retraining.batches import (
    RowFiles,
    add_batch,
    prompts_of_batches,
    read_batches,
    record_success,
    seen_rows,
)
from tasks.retraining.incoming_files import fetch, look
from tasks.retraining.withdrawals import withdraw, withdrawn_ids

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def take_up(store: Store, scratch: Path, config: ReplayConfig, *prompts: str) -> Batch:
    """A batch of these prompts."""
    scratch.mkdir(exist_ok=True)
    batches = read_batches(store)
    lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
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
        replay=partial(
            replayed_rows,
            store,
            read_records(store),
            config=config,
            source_field=None,
            scratch=scratch,
        ),
        withdrawn=withdrawn_ids(store),
    )
    assert batch is not None
    return batch


def texts(store: Store, batch: Batch, scratch: Path) -> list[str]:
    path = scratch / "data.jsonl.gz"
    store.download(batch.data, path)
    rows = [row.fields["prompt"] for row in read_rows(path) if isinstance(row, Row)]
    return [row[0]["content"] for row in rows if isinstance(row, list)]


def test_new_rows_come_first_and_only_they_count(file_store: Store, tmp_path: Path) -> None:
    everything = ReplayConfig()
    first = take_up(file_store, tmp_path, everything, "a", "b")
    record_success(file_store, first, "run-1", NOW)
    second = take_up(file_store, tmp_path, everything, "b", "c")
    assert texts(file_store, second, tmp_path) == ["b", "c", "a"]
    assert (second.num_pairs, second.replayed) == (2, (Replayed(batch=1, num_rows=1),))
    record_success(file_store, second, "run-2", NOW)
    # What the second replayed is not its own; of "b" its row is the newer one.
    third = take_up(file_store, tmp_path, everything, "d")
    assert sorted(texts(file_store, third, tmp_path)) == ["a", "b", "c", "d"]
    assert third.replayed == (Replayed(batch=1, num_rows=1), Replayed(batch=2, num_rows=2))
    assert read_batches(file_store)[2] == third


def test_a_batch_that_is_not_done_is_not_replayed(file_store: Store, tmp_path: Path) -> None:
    take_up(file_store, tmp_path, ReplayConfig(), "a", "b")
    second = take_up(file_store, tmp_path, ReplayConfig(), "c")
    assert texts(file_store, second, tmp_path) == ["c"]
    assert second.replayed == ()


def test_damaged_data_of_an_earlier_batch_stop_nothing(
    file_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = take_up(file_store, tmp_path, ReplayConfig(), "a")
    second = take_up(file_store, tmp_path, ReplayConfig(), "b")
    file_store.write(first.data, b"no gzip file")
    seen = seen_rows(file_store, [first, second], read_rows, tmp_path)
    assert seen.prompts == {prompt_id([Message("user", "b")])}
    assert f"{first.data} is gone or damaged" in caplog.text


def test_a_withdrawn_prompt_is_neither_taken_up_nor_replayed(
    file_store: Store, tmp_path: Path
) -> None:
    first = take_up(file_store, tmp_path, ReplayConfig(), "a", "b")
    record_success(file_store, first, "run-1", NOW)
    assert len(prompts_of_batches(file_store, [first], read_rows, tmp_path)) == 2
    ids = [prompt_id([Message("user", text)]) for text in ("a", "c")]
    withdraw(file_store, ids, reason=None, now=NOW)
    second = take_up(file_store, tmp_path, ReplayConfig(), "c", "d")
    assert texts(file_store, second, tmp_path) == ["d", "b"]
    assert second.row_counts is not None
    assert second.row_counts.rejected == {"withdrawn": 1}
    # The same files without the withdrawal are other data.
    file_store.delete("retrain/batches/000002/batch.json")
    for key in [info.key for info in file_store.list("withdrawn/")]:
        file_store.delete(key)
    assert take_up(file_store, tmp_path, ReplayConfig(), "c", "d").data != second.data


def test_the_same_files_with_other_replays_are_other_data(
    file_store: Store, tmp_path: Path
) -> None:
    first = take_up(file_store, tmp_path, ReplayConfig(), "a")
    record_success(file_store, first, "run-1", NOW)
    second = take_up(file_store, tmp_path, ReplayConfig(), "b")
    file_store.delete("retrain/batches/000002/batch.json")
    file_store.delete("retrain/batches/000001/done.json")
    alone = take_up(file_store, tmp_path, ReplayConfig(), "b")
    assert alone.number == second.number
    assert alone.data != second.data


def test_by_pvar_the_run_of_each_batch_is_asked(
    file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_pvar = ReplayConfig(count=1, order="pvar")
    first = take_up(file_store, tmp_path, by_pvar, "a", "b", "c")
    record_success(file_store, first, "run-1", NOW)
    rows = replayed_rows(
        file_store,
        read_records(file_store),
        (),
        ReplayConfig(),
        source_field=None,
        scratch=tmp_path,
    )
    ids = {row.prompt.messages[0].content: row.prompt.prompt_id for row in rows}

    def pvar_of(store: Store, run: str, scratch: Path) -> Mapping[str, float]:
        assert run == "run-1"
        return {ids["a"]: 0.1, ids["b"]: 0.2}

    monkeypatch.setattr(retrain_replay, "_pvar_of_run", pvar_of)
    second = take_up(file_store, tmp_path, by_pvar, "d")
    assert texts(file_store, second, tmp_path) == ["d", "b"]


def test_a_run_that_is_gone_leaves_the_order_to_the_ids(
    file_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    by_pvar = ReplayConfig(count=1, order="pvar")
    first = take_up(file_store, tmp_path, by_pvar, "a", "b")
    record_success(file_store, first, "run-1", NOW)
    second = take_up(file_store, tmp_path, by_pvar, "c")
    assert len(texts(file_store, second, tmp_path)) == 2
    assert "run run-1: its PVar is not known for replay" in caplog.text
