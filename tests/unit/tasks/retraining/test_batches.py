"""Each file is in exactly one batch, whoever else runs and wherever a run dies."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.round_record import read_rounds
from infra.row_files import read_rows, write_rows
from pvar.errors import DamagedError
from pvar.ports import Store
from pvar.records import Row
from pvar.retrain_decision import Batch
from pvar.row_counts import RowCounts
from tasks.retraining.batch_states import read_records
from tasks.retraining.batches import (
    RowFiles,
    add_batch,
    attempts_of,
    begin_attempt,
    read_batches,
    record_failure,
    record_success,
    record_waiting_run,
    take_back,
)
from tasks.retraining.erasures import read_erasures
from tasks.retraining.exams import newest_exam
from tasks.retraining.incoming_files import fetch, keep_inspected, look
from tasks.retraining.withdrawals import read_withdrawals

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


def put(store: Store, key: str, *prompts: str) -> None:
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    store.write(key, "\n".join(lines).encode())


def take_up(store: Store, scratch: Path, annotator_field: str | None = None) -> Batch | None:
    """One retraining's way to a batch: read the log, look, add."""
    batches = read_batches(store)
    known = {file.version for batch in batches for file in (*batch.files, *batch.duplicates)}
    scratch.mkdir(exist_ok=True)
    found = look(store, "incoming", read_rows, known=known, scratch=scratch)
    if not found.good:
        return None
    row_files = RowFiles(read_rows, write_rows)
    return add_batch(
        store,
        fetch(store, found.good, scratch),
        batches,
        reasons=("enough",),
        now=NOW,
        row_files=row_files,
        scratch=scratch,
        annotator_field=annotator_field,
    )


def prompts_of(store: Store, batch: Batch, scratch: Path) -> list[object]:
    path = scratch / "read.jsonl.gz"
    store.download(batch.data, path)
    rows = [row for row in read_rows(path) if isinstance(row, Row)]
    return [row.fields["prompt"] for row in rows]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_batch_holds_the_good_rows_of_all_its_files(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/b.jsonl", *[f"b{number}" for number in range(10)], "")  # 1 of 11 is empty
    put(store, "incoming/a.jsonl", "a0")
    batch = take_up(store, tmp_path)
    assert batch is not None
    assert (batch.number, batch.num_pairs) == (1, 11)
    expected = [user("a0"), *[user(f"b{number}") for number in range(10)]]
    assert prompts_of(store, batch, tmp_path) == expected
    assert read_batches(store) == [batch]


def test_a_file_of_a_batch_is_not_taken_up_again(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "one")
    take_up(store, tmp_path / "1")
    assert take_up(store, tmp_path / "2") is None
    put(store, "incoming/b.jsonl", "two")
    second = take_up(store, tmp_path / "3")
    assert second is not None
    assert (second.number, [file.key for file in second.files]) == (2, ["incoming/b.jsonl"])


def test_a_file_that_an_earlier_retraining_inspected_is_read_for_its_batch(
    store: Store, tmp_path: Path
) -> None:
    put(store, "incoming/a.jsonl", "one")
    found = look(store, "incoming", read_rows, known=set(), scratch=tmp_path / "1")
    keep_inspected(store, [each.file for each in found.good])
    batch = take_up(store, tmp_path / "2")
    assert batch is not None
    assert batch.files == tuple(each.file for each in found.good)
    assert prompts_of(store, batch, tmp_path) == [user("one")]


def put_rows(store: Store, key: str, *rows: dict[str, object]) -> None:
    store.write(key, "\n".join(map(json.dumps, rows)).encode())


def test_labels_of_one_prompt_are_joined_over_the_files_of_a_batch(
    file_store: Store, tmp_path: Path
) -> None:
    good = {"prompt": "Hi", "completion": "Hello.", "label": True}
    bad = {"prompt": "Hi", "completion": "Go away.", "label": False}
    lonely = {"prompt": "Why?", "completion": "No.", "label": False}
    bare = {"prompt": "Hi"}
    pair = {"prompt": "Who?", "chosen": "I am.", "rejected": "Nobody."}
    put_rows(file_store, "incoming/monday.jsonl", good, lonely, bare)
    put_rows(file_store, "incoming/tuesday.jsonl", bad, pair, {"prompt": "When?"})
    batch = take_up(file_store, tmp_path)
    assert batch is not None
    assert (batch.num_pairs, batch.num_labelled) == (3, 2)
    assert batch.row_counts == RowCounts(
        rows_in=6,
        rows_out=3,
        rejected={"joined_in_pair": 1, "labelled_elsewhere": 1, "unpaired_label": 1},
    )
    path = tmp_path / "data.jsonl.gz"
    file_store.download(batch.data, path)
    rows = [row.fields for row in read_rows(path) if isinstance(row, Row)]
    assert {"prompt": user("Hi"), "chosen": "Hello.", "rejected": "Go away."} in rows
    assert {"prompt": user("When?")} in rows


def test_who_labelled_a_row_is_kept(file_store: Store, tmp_path: Path) -> None:
    put_rows(
        file_store,
        "incoming/a.jsonl",
        {"prompt": "pair", "chosen": "a", "rejected": "b", "who": "ann"},
        {"prompt": "halves", "completion": "bad", "label": False, "who": "bob"},
        {"prompt": "halves", "completion": "good", "label": True, "who": 7},
        {"prompt": "nobody", "chosen": "a", "rejected": "b", "who": " "},
        {"prompt": "only a prompt"},
    )
    batch = take_up(file_store, tmp_path, annotator_field="who")
    assert batch is not None
    path = tmp_path / "rows.jsonl.gz"
    file_store.download(batch.data, path)
    rows = [row.fields for row in read_rows(path) if isinstance(row, Row)]
    by_prompt = {str(row["prompt"][0]["content"]): row.get("who") for row in rows}  # type: ignore[index]
    # Of an unpaired label it is who labelled the chosen answer.
    assert by_prompt == {"pair": "ann", "halves": "7", "nobody": None, "only a prompt": None}


def test_labels_without_a_counterpart_wait_for_it(file_store: Store, tmp_path: Path) -> None:
    put_rows(
        file_store, "incoming/a.jsonl", {"prompt": "Hi", "completion": "Hello.", "label": True}
    )
    assert take_up(file_store, tmp_path / "1") is None
    assert read_batches(file_store) == []
    put_rows(
        file_store, "incoming/b.jsonl", {"prompt": "Hi", "completion": "Go away.", "label": False}
    )
    batch = take_up(file_store, tmp_path / "2")
    assert batch is not None
    assert (batch.num_pairs, batch.num_labelled) == (1, 1)


def test_a_record_without_row_counts_has_the_rows_of_its_files(
    file_store: Store, tmp_path: Path
) -> None:
    put(file_store, "incoming/a.jsonl", "one", "two")
    batch = take_up(file_store, tmp_path)
    assert batch is not None
    old = Batch.model_validate(batch.model_dump(exclude={"row_counts", "num_labelled"}))
    assert (old.num_pairs, old.num_labelled) == (2, None)


def test_the_same_content_under_another_name_is_used_once(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "one")
    put(store, "incoming/copy.jsonl", "one")
    first = take_up(store, tmp_path / "1")
    assert first is not None
    assert first.num_pairs == 1
    assert [file.key for file in first.duplicates] == ["incoming/copy.jsonl"]
    put(store, "incoming/late-copy.jsonl", "one")
    put(store, "incoming/new.jsonl", "two")
    second = take_up(store, tmp_path / "2")
    assert second is not None
    assert [file.key for file in second.files] == ["incoming/new.jsonl"]
    assert prompts_of(store, second, tmp_path) == [user("two")]


def test_of_runs_at_the_same_moment_one_makes_the_batch(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "one")
    put(store, "incoming/b.jsonl", "two")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda index: take_up(store, tmp_path / str(index)), range(8)))
    assert sum(batch is not None for batch in made) == 1
    (batch,) = read_batches(store)
    assert [file.key for file in batch.files] == ["incoming/a.jsonl", "incoming/b.jsonl"]


def test_a_run_with_an_old_view_of_the_log_cannot_use_a_file_twice(
    store: Store, tmp_path: Path
) -> None:
    put(store, "incoming/a.jsonl", "one")
    old_view = look(store, "incoming", read_rows, known=set(), scratch=tmp_path / "old").good
    take_up(store, tmp_path / "other")
    row_files = RowFiles(read_rows, write_rows)
    late = add_batch(
        store, old_view, [], reasons=(), now=NOW, row_files=row_files, scratch=tmp_path
    )
    assert late is None
    assert len(read_batches(store)) == 1


def test_death_before_the_record_loses_and_doubles_nothing(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "one")
    batch = take_up(store, tmp_path / "1")
    assert batch is not None
    store.delete("retrain/batches/000001/batch.json")  # as if killed after the data was written
    again = take_up(store, tmp_path / "2")
    assert again is not None
    assert again.data == batch.data
    assert [info.key for info in store.list("retrain/data/")] == [batch.data]


def test_a_batch_is_done_by_success_and_not_by_failures(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "one")
    batch = take_up(store, tmp_path)
    assert batch is not None
    begin_attempt(store, batch, NOW)  # and here it was killed
    failed = begin_attempt(store, batch, NOW)
    record_failure(store, batch, failed, "StageError: no disk")
    cancelled = begin_attempt(store, batch, NOW)
    take_back(store, batch, cancelled)
    assert read_records(store)[0].done is None
    assert [each.error for each in attempts_of(store, batch)] == [None, "StageError: no disk"]
    record_success(store, batch, "20260310-120000-abcd", NOW)
    (record,) = read_records(store)
    assert record.done is not None
    assert (record.batch, record.done.run) == (batch, "20260310-120000-abcd")


def test_a_run_that_waits_is_neither_done_nor_a_failed_attempt(
    store: Store, tmp_path: Path
) -> None:
    put(store, "incoming/a.jsonl", "one")
    batch = take_up(store, tmp_path)
    assert batch is not None
    record_waiting_run(store, batch, begin_attempt(store, batch, NOW), "20260310-1", NOW)
    (record,) = read_records(store)
    assert record.done is None
    assert record.attempts == ()
    assert record.waiting is not None
    assert (record.waiting.run, record.waiting.since) == ("20260310-1", NOW)
    record_success(store, batch, "20260311-1", NOW)
    (record,) = read_records(store)
    assert record.done is not None
    assert record.waiting is None


def test_a_damaged_record_stops_instead_of_using_its_files_again(
    store: Store, tmp_path: Path
) -> None:
    put(store, "incoming/a.jsonl", "one")
    take_up(store, tmp_path)
    store.write("retrain/batches/000001/batch.json", b"{}")
    with pytest.raises(DamagedError, match=r"batches/000001/batch\.json is not a valid batch"):
        read_batches(store)


@pytest.mark.parametrize(
    ("key", "read", "advice"),
    [
        ("withdrawn/0a.json", read_withdrawals, "otherwise the prompts that it withdraws are used"),
        ("erasures/000001.json", read_erasures, "otherwise models that were trained on the erased"),
        ("retrain/exams/000001.json", newest_exam, "the next run freezes another exam"),
        ("rounds/m/round-000001.json", lambda store: read_rounds(store, "m"), "delete rounds/m/"),
    ],
)
def test_the_advice_about_a_damaged_record_is_of_its_kind(
    store: Store, key: str, read: Callable[[Store], object], advice: str
) -> None:
    store.write(key, b"{")
    with pytest.raises(DamagedError, match=f"{key} is not a valid .*; .*{advice}"):
        read(store)
