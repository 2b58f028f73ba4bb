"""Retraining on a real Prefect server: by an event, one at a time, and what it leaves behind."""

import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import TerminationSignal

from flows.arrival import announce
from flows.commands.batches import batches as list_batches
from flows.commands.batches import retry
from flows.deployment_specs import packaged_folder
from flows.deployments import deploy
from flows.retraining import retrain
from flows.run_record import load_run
from flows.version_results import by_curve, version_results
from flows.wiring import connect
from infra.row_files import read_rows, write_rows
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, InputError, LeaseError, PvarError, TrackingError
from pvar.ports import RegisteredVersion, Store
from pvar.retrain_decision import RetrainConfig
from tasks.engine.lease import hold
from tasks.retraining.batch_states import VANISHED, read_records
from tasks.retraining.batches import (
    LEASE,
    RowFiles,
    add_batch,
    attempts_of,
    begin_attempt,
    read_batches,
)
from tasks.retraining.incoming_files import look
from tests.integration.test_pipeline import QUESTIONS, tiny_settings
from tests.services.prefect_server import PrefectServer
from tests.services.processes import NEVER_SECONDS, wait_until
from tests.workflow import TOPICS, fake_settings

pytestmark = [
    pytest.mark.slow,
    # Raised inside Prefect.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: PrefectServer) -> Store:
    """An empty home of this test."""
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    # MLflow leaves the address of an earlier test in MLFLOW_TRACKING_URI.
    monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return connect().store


def that_fails(tmp_path: Path, max_attempts: int = 2) -> RetrainConfig:
    """Each row is enough for a run, and each run fails at once: there is no such model."""
    settings = fake_settings(Path("replaced by the batch"), policy=str(tmp_path / "no-model"))
    return RetrainConfig(
        min_new_pairs=1,
        max_attempts=max_attempts,
        pipeline=PipelineConfig.model_validate(settings),
    )


def put(store: Store, key: str, *prompts: str) -> None:
    store.write(key, "".join(json.dumps({"prompt": each}) + "\n" for each in prompts).encode())


def test_a_batch_that_fails_is_tried_again_and_then_set_aside(store: Store, tmp_path: Path) -> None:
    config = that_fails(tmp_path, max_attempts=2)
    put(store, "incoming/monday.jsonl", "one")
    for attempt in (1, 2):
        with pytest.raises(PvarError, match="no-model"):
            retrain(config)
        (batch,) = read_batches(store)
        attempts = attempts_of(store, batch)
        assert len(attempts) == attempt
        assert "no-model" in (attempts[-1].error or "it died")
    result = retrain(config)
    assert (result.runs, result.batch, result.reasons) == ((), None, ("no new data",))
    put(store, "incoming/tuesday.jsonl", "two")  # does not wait for the first
    with pytest.raises(PvarError, match="no-model"):
        retrain(config)
    _, second = read_batches(store)
    assert [file.key for file in second.files] == ["incoming/tuesday.jsonl"]


def test_a_batch_whose_run_died_is_run_by_the_next_one_or_set_aside(
    store: Store, tmp_path: Path
) -> None:
    put(store, "incoming/monday.jsonl", "one")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = look(store, "incoming", read_rows, known=set(), scratch=scratch)
    batch = add_batch(
        store,
        found.good,
        [],
        reasons=(),
        now=datetime.now(UTC),
        row_files=RowFiles(read_rows, write_rows),
        scratch=scratch,
    )
    assert batch is not None
    begin_attempt(store, batch, datetime.now(UTC))  # and here it was killed
    put(store, "incoming/tuesday.jsonl", "two")
    with pytest.raises(PvarError, match="no-model"):
        retrain(that_fails(tmp_path, max_attempts=2))
    assert read_batches(store) == [batch]
    errors = [attempt.error or "" for attempt in attempts_of(store, batch)]
    assert errors[0] == VANISHED
    assert "no-model" in errors[1]
    begin_attempt(store, batch, datetime.now(UTC))  # and killed once more
    with pytest.raises(PvarError, match="no-model"):
        retrain(that_fails(tmp_path, max_attempts=3))
    _, second = read_batches(store)
    assert [file.key for file in second.files] == ["incoming/tuesday.jsonl"]
    assert len(attempts_of(store, batch)) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_attempt_is_recorded_before_the_run_and_does_not_count_when_it_is_stopped(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    put(store, "incoming/monday.jsonl", "one")
    during: list[int] = []
    handler = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: None)  # Prefect sends it again at the end of the run
    with socket.create_server(("127.0.0.1", 0)) as silent:  # MLflow, for the run to wait for

        def interrupt() -> None:
            connection, _ = silent.accept()
            with connection:
                (batch,) = read_batches(store)
                during.append(len(attempts_of(store, batch)))
                os.kill(os.getpid(), number)
                time.sleep(1)

        port = silent.getsockname()[1]
        monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        pipeline = PipelineConfig.model_validate(fake_settings(Path("replaced by the batch")))
        person = threading.Thread(target=interrupt)
        person.start()
        with pytest.raises((KeyboardInterrupt, TerminationSignal)):
            retrain(RetrainConfig(min_new_pairs=1, pipeline=pipeline))
        person.join()
    signal.signal(signal.SIGTERM, handler)
    assert during == [1]
    (record,) = read_records(store)
    assert record.attempts == ()
    # A person's stop leaves the batch as it was; a platform's is an outage.
    assert (record.outage is not None) == (number == signal.SIGTERM)


def test_an_outage_of_mlflow_ends_the_retraining_and_the_batch_pauses(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(store, "incoming/monday.jsonl", "one")
    with socket.create_server(("127.0.0.1", 0)) as closed:  # nobody listens there afterwards
        port = closed.getsockname()[1]
    monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    pipeline = PipelineConfig.model_validate(fake_settings(Path("replaced by the batch")))
    config = RetrainConfig(min_new_pairs=1, max_attempts=1, pipeline=pipeline)
    with pytest.raises(TrackingError, match="MLflow at"):
        retrain(config)
    result = retrain(config)  # one failed run would be enough to set the batch aside
    assert result.runs == ()
    (sentence,) = result.postponed
    assert "batch 1 is not run before" in sentence
    retry(1)
    (record,) = read_records(store)
    assert record.counted == ()
    capsys.readouterr()
    list_batches(as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["number"], row["state"], row["rows"]) == (1, "waiting_for_run", 1)


def test_a_gate_that_the_exam_cannot_serve_counts_against_no_batch(store: Store) -> None:
    put(store, "incoming/monday.jsonl", "one")
    gate = {"model_name": "m", "max_ability_loss": 0.2}
    pipeline = PipelineConfig.model_validate(fake_settings(Path("replaced"), promote=gate))
    config = RetrainConfig(min_new_pairs=1, max_attempts=1, pipeline=pipeline)
    for _ in range(2):  # one attempt would be enough to set it aside
        with pytest.raises(ConfigError, match=r"no attempt counts; set evaluate\.prompts"):
            retrain(config)
    (batch,) = read_batches(store)
    assert attempts_of(store, batch) == []


def test_two_retrainings_at_once_are_one(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/monday.jsonl", "one")
    with hold(store, LEASE), pytest.raises(LeaseError, match="is held by process"):
        retrain(that_fails(tmp_path))
    assert read_batches(store) == []


def test_a_file_that_is_not_there_is_not_announced(store: Store) -> None:
    put(store, "incoming/monday.jsonl", "one")
    with pytest.raises(InputError, match=r"has no incoming/mon\.jsonl"):
        announce(store, ["incoming/monday.jsonl", "incoming/mon.jsonl"])


LABELLED = (
    "Which soup is best in winter?",
    "How does a lighthouse keeper spend the night?",
    "Why do cats sleep on keyboards?",
)
ON_FRESH_SIDE = "When do figs ripen?"
"""By its hash; those above are not."""


def continued(tmp_path: Path) -> RetrainConfig:
    """Each round starts from the champion, with every gate of a year, at bounds that all pass."""
    tiny = tiny_settings(tmp_path, "pvar").model_dump()
    tiny |= {"policy": "champion", "policy_if_none": tiny["policy"]}
    reserve = tmp_path / "reserve.jsonl"
    reserve.write_text("".join(json.dumps({"prompt": f"Name {name}."}) + "\n" for name in "abc"))
    tiny["evaluate"] |= {"opponent": "champion", "against_first": True, "divergence": True}
    tiny["evaluate"] |= {"reserve_prompts": [str(reserve)]}
    tiny["label_audit"] = {"max_judged": 2}
    tiny["promote"] |= {"alpha_budget": 0.5, "max_total_ability_loss": 1.0}
    tiny["promote"] |= {"max_total_divergence": 1000.0}
    pipeline = PipelineConfig.model_validate(tiny)
    return RetrainConfig(
        min_new_pairs=1, min_exam_prompts=1, fresh_share=0.3, audit_every=2, pipeline=pipeline
    )


def test_two_batches_are_measured_on_one_exam_and_the_second_starts_from_the_champion(
    store: Store, tmp_path: Path
) -> None:
    config, wiring = continued(tmp_path), connect()
    describe = [f"Describe {topic}." for topic in TOPICS]
    questions = "".join(json.dumps(row) + "\n" for row in QUESTIONS)
    store.write("incoming/questions.jsonl", questions.encode())
    put(store, "incoming/monday.jsonl", *describe[:20])
    result = retrain(config)
    (run,) = result.runs
    first = load_run(store, run)
    assert result.audited is None
    put(store, "incoming/tuesday.jsonl", *describe[16:])  # some of the exam among them
    labelled = (*LABELLED, ON_FRESH_SIDE)
    labels = [{"prompt": each, "chosen": "Good.", "rejected": "Bad."} for each in labelled]
    store.write("incoming/labels.jsonl", "".join(json.dumps(row) + "\n" for row in labels).encode())
    result = retrain(config)
    (run,) = result.runs
    second = load_run(store, run)

    roots = [{node.name: node.artifact for node in each.nodes} for each in (first, second)]
    assert roots[0]["exam"] == roots[1]["exam"]
    assert roots[0]["evaluate-first"] == roots[0]["evaluate"]  # the opponent was the first model
    assert roots[0]["divergence-first"] == roots[0]["divergence"]
    assert roots[1]["divergence-first"] != roots[1]["divergence"]
    assert roots[1]["answers-first"] == roots[0]["answers-first"]
    assert first.config.policy == first.config.first_model == second.config.first_model
    assert second.config.policy == f"artifact:{roots[0]['train']}#{roots[0]['train']}"
    assert wiring.registry.champion("pvar") == RegisteredVersion(
        "pvar", 2, roots[1]["train"], second.config.policy
    )
    without_labels, with_labels = (record.audit for record in read_records(store))
    assert without_labels is None
    assert with_labels is not None  # of models that had not seen the labels
    num_asked = {each.model: each.num_labels for each in with_labels.counts}
    assert num_asked == {"vader": 3, "the champion": 3, "judge fake": 2}
    ((before, after),) = by_curve(version_results(wiring.registry.versions("pvar")))
    assert before.look == "look 1 at this exam, level 0.3 of 0.5"
    assert after.look == "look 2 at this exam, level 0.076 of 0.5"
    assert after.against_first.win_rate is not None
    assert after.divergence_since_first is not None
    assert before.fresh.agreement is None  # no labels in that batch
    assert None not in after.fresh
    assert result.audited is not None
    assert result.audited.startswith("pvar version 2 on the reserve exam: wins ")
    assert "look 1" in result.audited
    page = store.read(f"runs/{second.run}.html").decode()
    assert "Does it get better from version to version?" in page
    assert "Look 2 at this exam, level 0.076 of 0.5." in page


@pytest.fixture
def deployed(store: Store, server: PrefectServer, tmp_path: Path) -> Iterator[str]:
    """The retrain deployment's id, with a worker and without its schedule's runs."""
    config = RetrainConfig(min_new_pairs=1000)
    deploy(packaged_folder(), ("process",), config=config)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("retrain/retrain")
    with server.worker("pvar-process", PVAR_HOME=str(tmp_path)):
        yield str(deployment.id)


def post_event(api: str) -> None:
    """What any HTTP client may send."""
    event = {
        "event": "preference-data.arrived",
        "resource": {"prefect.resource.id": "pvar.incoming"},
        "occurred": datetime.now(UTC).isoformat(),
        "id": str(uuid4()),
    }
    request = urllib.request.Request(
        f"{api}/events",
        data=json.dumps([event]).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=NEVER_SECONDS) as response:
        assert response.status == 204


def runs_by_event(deployment: str) -> list[FlowRun]:
    by_deployment = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId.model_validate({"any_": [deployment]})
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=by_deployment)
    return [run for run in runs if not run.auto_scheduled]


def test_events_start_retrainings_one_after_the_other(
    deployed: str, server: PrefectServer, store: Store
) -> None:
    of_other_files = {run.id for run in runs_by_event(deployed)}  # they share the server

    def started() -> list[FlowRun]:
        return [run for run in runs_by_event(deployed) if run.id not in of_other_files]

    store.write("incoming/broken.jsonl", b'{"prompt": "fine"}\n{"prompt": \n')
    put(store, "incoming/monday.jsonl", "one", "two")
    announce(store, ["incoming/monday.jsonl"])
    post_event(server.api)

    def are_over() -> bool:
        runs = started()
        return len(runs) == 2 and all(run.state and run.state.is_final() for run in runs)

    wait_until(are_over, "end of two retrainings", pause_seconds=0.5)
    runs = started()
    assert [run.state and run.state.type.value for run in runs] == ["COMPLETED", "COMPLETED"]
    first, second = sorted(
        ((run.start_time, run.end_time) for run in runs), key=lambda times: str(times[0])
    )
    assert first[1] is not None
    assert second[0] is not None
    assert first[1] <= second[0]
    with get_client(sync_client=True) as client:
        names = {state.name for run in runs for state in client.read_flow_run_states(run.id)}
    assert "AwaitingConcurrencySlot" in names

    assert [info.key for info in store.list("incoming/")] == ["incoming/monday.jsonl"]
    (reason,) = [info.key for info in store.list("quarantine/") if "reason" in info.key]
    assert reason.endswith("/broken.jsonl.reason.json")
    said = json.loads(store.read(reason))
    assert said["key"] == "incoming/broken.jsonl"
    assert said["reason"].startswith("1 of its 2 rows are bad")
    assert read_batches(store) == []  # 2 rows are not 1000
