"""What is told of an MLflow that fails."""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from infra.mlflow_errors import first_line
from infra.system_metrics import system_metrics
from infra.tracking import StepFigures, Tracking
from pvar.errors import TrackingError
from pvar.ports import Store
from tests.services.processes import wait_until
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


def log_a_file(tracking: Tracking, run: str) -> None:
    path = Path(tracking.tracking_uri.removeprefix("sqlite:///")).with_name("report.html")
    path.write_text("<p>made</p>")
    tracking.log_file(run, path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "ask",
    [
        lambda tracking, _: tracking.start_run("sample", {}),
        lambda tracking, run: tracking.log_parameters(run, {"beta": 0.1}),
        lambda tracking, run: tracking.log_summary(run, {"loss": 0.1}),
        lambda tracking, run: tracking.log_steps(run, [StepFigures(1, 0.0, {"loss": 0.1})]),
        lambda tracking, run: tracking.log_inputs(run, {"prompts": "ingest/00aa"}, "s3://pvar"),
        log_a_file,
        lambda tracking, run: tracking.end_run(run, failed=False),
        lambda tracking, run: tracking.reopen_run(run),
    ],
)
def test_an_mlflow_that_fails_during_a_run_is_named(
    tmp_path: Path, file_store: Store, ask: Callable[[Tracking, str], object]
) -> None:
    neighbours = RegistryNeighbours(tmp_path, file_store)
    tracking = neighbours.tracking()
    run = tracking.start_run("train", {})
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("ALTER TABLE runs RENAME TO gone")
    with pytest.raises(TrackingError, match=r"MLflow at sqlite:\S+ cannot be used: .*runs"):
        ask(tracking, run)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://ana:s3cr3t@127.0.0.1:9/mlflow"])
def test_an_mlflow_that_nobody_answers_is_named_at_once(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # what the credentials become
    tracking = Tracking(address, tmp_path.as_uri())
    with pytest.raises(TrackingError, match=r"MLflow at http://127\S+ cannot be used: .*refused"):
        tracking.start_run("train", {})
    assert "s3cr3t" not in tracking.public_uri


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_experiment_opens_on_its_runs_unless_a_person_chose_another_view(
    tmp_path: Path, file_store: Store
) -> None:
    neighbours = RegistryNeighbours(tmp_path, file_store)
    client, key = neighbours.tracking().client, "mlflow.experimentKind"
    # The first one makes the database; MLflow logs that as news, in a format of its own.
    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.INFO)

    def kind_after(before: str) -> str:
        experiment = neighbours.tracking().experiment
        client.set_experiment_tag(experiment, key, before)
        return str(client.get_experiment(neighbours.tracking().experiment).tags[key])

    # The second is what MLflow's UI guesses of an experiment without runs.
    assert kind_after("custom_model_development") == "custom_model_development"
    assert kind_after("genai_development_inferred") == "custom_model_development"
    assert kind_after("genai_development") == "genai_development"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_machine_is_measured_while_a_long_run_works(
    tmp_path: Path, file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    tracking = RegistryNeighbours(tmp_path, file_store).tracking()
    short, long = tracking.start_run("short", {}), tracking.start_run("long", {})
    with system_metrics(tracking, short):
        pass

    def measured(run: str) -> set[str]:
        return set(tracking.client.get_run(run).data.metrics)

    with system_metrics(tracking, long, after_seconds=0):
        wait_until(lambda: "system/cpu_utilization_percentage" in measured(long), "a measurement")
    assert measured(short) == set()
