"""What is told of an MLflow that fails."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from infra.tracking import first_line
from pvar.errors import TrackingError
from pvar.ports import Store
from tests.services.registry import RegistryNeighbours


def test_a_cause_is_told_whole() -> None:
    # As long as urllib3's for a port that nobody answers; its last words say what is wrong.
    cause = "HTTPConnectionPool(host='127.0.0.1', port=9): " * 9 + "Connection refused"
    assert len(cause) == 432
    assert first_line(Exception(f"{cause}\nmore")) == cause


def test_a_cause_as_long_as_a_page_ends_at_a_word() -> None:
    said = first_line(Exception("<p>word</p> " * 1000))
    assert said.endswith("<p>word</p> …")
    assert len(said) <= 600


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_workers_that_log_the_same_inputs_at_once_both_do(
    tmp_path: Path, file_store: Store
) -> None:
    """MLflow looks first, and then inserts what another worker may have inserted meanwhile."""
    neighbours = RegistryNeighbours(tmp_path, file_store)
    tracking, other = neighbours.tracking(), neighbours.tracking()
    inputs = {"prompts": "ingest/00aa"}
    ours, theirs = tracking.start_run("sample", {}), other.start_run("sample 2", {})
    seen = []

    def be_overtaken(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("INSERT INTO datasets") and not seen:
            seen.append(statement)
            other.log_inputs(theirs, inputs, file_store.uri)

    event = (sqlalchemy.Engine, "before_cursor_execute", be_overtaken)
    sqlalchemy.event.listen(*event)
    try:
        tracking.log_inputs(ours, inputs, file_store.uri)
    finally:
        sqlalchemy.event.remove(*event)
    assert len(seen) == 1
    for run in (ours, theirs):
        (logged,) = tracking.client.get_run(run).inputs.dataset_inputs
        assert (logged.dataset.name, logged.dataset.digest) == ("ingest", "00aa")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_file_for_a_run_that_is_gone_is_an_error_with_its_name(
    tmp_path: Path, file_store: Store
) -> None:
    """As after `pvar registry rebuild` in an empty MLflow."""
    (tmp_path / "report.html").write_text("<p>made again</p>")
    gone = "0123456789abcdef0123456789abcdef"
    with pytest.raises(TrackingError, match=f"no run {gone}, so report.html"):
        RegistryNeighbours(tmp_path, file_store).tracking().log_file(gone, tmp_path / "report.html")
