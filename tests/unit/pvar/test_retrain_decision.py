"""When a retraining starts a run."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from pvar.retrain_decision import IncomingFile, RetrainConfig, decide_retraining
from pvar.row_counts import RowCounts

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
CONFIG = RetrainConfig(min_new_pairs=100, max_days_between_runs=7)


def waiting(num_rows: int, *, days_ago: float = 0) -> IncomingFile:
    return IncomingFile(
        key="incoming/a.jsonl",
        num_bytes=1,
        modified=NOW - timedelta(days=days_ago),
        sha256=f"{num_rows}",
        row_counts=RowCounts(rows_in=num_rows + 2, rows_out=num_rows, rejected={"no_prompt": 2}),
    )


def test_enough_new_pairs_over_all_files_start_a_run() -> None:
    # 60 + 40 = 100 good rows; the 2 rejected rows of each file do not count.
    assert decide_retraining(CONFIG, [waiting(60), waiting(40)], NOW, NOW).start
    assert not decide_retraining(CONFIG, [waiting(60), waiting(39)], NOW, NOW).start


def test_fewer_pairs_start_a_run_when_the_last_batch_is_long_ago() -> None:
    assert decide_retraining(CONFIG, [waiting(1)], NOW - timedelta(days=7), NOW).start
    assert not decide_retraining(CONFIG, [waiting(1)], NOW - timedelta(days=6.9), NOW).start


def test_before_the_first_batch_time_counts_from_the_oldest_file() -> None:
    assert decide_retraining(CONFIG, [waiting(1), waiting(2, days_ago=8)], None, NOW).start
    assert not decide_retraining(CONFIG, [waiting(1), waiting(2, days_ago=6)], None, NOW).start


def test_an_old_file_that_waited_does_not_count_as_time_since_the_last_batch() -> None:
    assert not decide_retraining(
        CONFIG, [waiting(1, days_ago=30)], NOW - timedelta(days=1), NOW
    ).start


def test_without_new_data_no_time_is_long_enough() -> None:
    decision = decide_retraining(CONFIG, [], NOW - timedelta(days=365), NOW)
    assert not decision.start
    assert decision.reasons == ("no new data",)


def test_without_a_limit_in_days_only_the_number_counts() -> None:
    patient = CONFIG.model_copy(update={"max_days_between_runs": None})
    assert not decide_retraining(patient, [waiting(99, days_ago=365)], None, NOW).start


def test_the_reasons_hold_both_values_of_each_comparison() -> None:
    decision = decide_retraining(CONFIG, [waiting(99)], NOW - timedelta(days=2), NOW)
    assert decision.reasons == (
        "99 new pairs in 1 files, min_new_pairs is 100",
        "2.0 days since the last batch, max_days_between_runs is 7",
    )


@pytest.mark.parametrize("prefix", ["", "/incoming", "../other", ".hidden"])
def test_a_prefix_that_is_no_folder_of_the_store_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="incoming"):
        RetrainConfig(incoming=prefix)


def test_rows_with_prompts_of_earlier_batches_do_not_count() -> None:
    # 120 good rows, of which 30 are not new: 90, and 90 + 10 are the 100 that are needed.
    again = waiting(120).model_copy(update={"num_not_new": 30})
    decision = decide_retraining(CONFIG, [again], NOW, NOW)
    assert not decision.start
    assert decision.reasons[:2] == (
        "90 new pairs in 1 files, min_new_pairs is 100",
        "30 rows with prompts of earlier batches, or withdrawn ones, do not count",
    )
    assert decide_retraining(CONFIG, [again, waiting(10)], NOW, NOW).start
    all_seen = again.model_copy(update={"num_not_new": 120})
    decision = decide_retraining(CONFIG, [all_seen], NOW - timedelta(days=365), NOW)
    assert not decision.start
    assert decision.reasons[0] == "no new data"


@pytest.mark.parametrize("ingest", [{"format": "hh"}, {"columns": {"prompt": "question"}}])
def test_the_form_of_incoming_files_is_not_named(ingest: dict[str, object]) -> None:
    """They stay in the store, where `pvar forget --erase` must find their prompts."""
    with pytest.raises(ValidationError, match="leave out both keys"):
        RetrainConfig.model_validate({"pipeline": {"ingest": ingest}})
