"""The shipped automations on a real Prefect server: a lost run is found, a failed one is told."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue

import pytest
import yaml
from prefect import flow, get_client
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.objects import FlowRun
from prefect.states import Pending

from flows.deployment_specs import packaged_folder
from flows.deployments import deploy
from pvar.retrain_decision import RetrainConfig
from tests.services import stage_flows
from tests.services.prefect_events import repeat_last_event
from tests.services.prefect_server import ROOT, PrefectServer, kill_tree
from tests.services.processes import NEVER_SECONDS, wait_until

pytestmark = [
    pytest.mark.slow,
    # Raised inside Prefect.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

RUN = "prefect.flow-run"


def test_lost_runs_are_marked_crashed(server: PrefectServer, tmp_path: Path) -> None:
    """One is killed together with its worker; another was taken and never started, as when its
    container is killed at once, of which Prefect's worker may say nothing."""
    deploy(packaged_folder(), ("process",), config=RetrainConfig())
    killed = start_endless()
    with server.worker("pvar-process", PYTHONPATH=str(ROOT)) as worker:
        wait_until(lambda: state(killed)[0] == "Running", "the run", pause_seconds=0.5)
        kill_tree(worker)  # at once, so that nobody is left to tell
    assert state(killed)[0] == "Running"

    # Shipped is the time of three heartbeats, and half an hour; Prefect takes no less than 10 s.
    shorter = {"heartbeat-lost": (90, 10), "start-lost": (1800, 10)}
    with quicker(tmp_path / "infra", shorter), get_client(sync_client=True) as client:
        taken, waiting = start_endless(), start_endless()
        client.set_flow_run_state(taken.id, Pending())
        assert repeat_last_event(killed.id) in (f"{RUN}.Running", f"{RUN}.heartbeat")
        wait_until(lambda: state(taken)[0] != "Pending", "the automation")
        told = "The run had not started 30 minutes after a worker took it."
        assert state(taken) == ("Crashed", told)
        assert state(waiting)[0] in ("Scheduled", "Late")  # nobody took it: a worker still may
        client.delete_flow_run(waiting.id)

        wait_until(lambda: state(killed)[0] != "Running", "the automation", pause_seconds=1)
        assert state(killed) == ("Crashed", "The process gave no sign of life for 90 seconds.")


def start_endless() -> FlowRun:
    """A run of a stage that takes very long, for whoever takes it."""
    stage_flows.deploy("endless", "lost", "pvar-process")
    parameters = {"config": {}, "node": "sample", "parent_run": None}
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("sample/sample-lost")
        return client.create_flow_run_from_deployment(deployment.id, parameters=parameters)


def state(of: FlowRun) -> tuple[str | None, str | None]:
    """Name and message of a run's state now."""
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(of.id).state
    return (found.name, found.message) if found else (None, None)


@contextmanager
def quicker(folder: Path, seconds: dict[str, tuple[int, int]]) -> Iterator[None]:
    """Everything registered, with less patience in some automations: shipped seconds, and ours."""
    shutil.copytree(packaged_folder() / "work_pools", folder / "work_pools")
    shutil.copytree(packaged_folder() / "automations", folder / "automations")
    shutil.copy(packaged_folder() / "prefect.yaml", folder)
    for name, (shipped, ours) in seconds.items():
        path = folder / "automations" / f"{name}.yaml"
        automation = yaml.safe_load(path.read_text())
        assert automation["trigger"]["within"] == shipped
        automation["trigger"]["within"] = ours
        path.write_text(yaml.safe_dump(automation))
    deploy(folder, ("process",), config=RetrainConfig())
    try:
        yield
    finally:  # the server serves other tests as well
        deploy(packaged_folder(), ("process",), config=RetrainConfig())


@pytest.fixture
def webhook() -> Iterator[tuple[str, "Queue[dict[str, str]]"]]:
    """Somebody who takes messages: address, and what arrived."""
    arrived: Queue[dict[str, str]] = Queue()

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quietly."""

    inbox = HTTPServer(("127.0.0.1", 0), Inbox)
    thread = threading.Thread(target=inbox.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{inbox.server_port}", arrived
    inbox.shutdown()
    thread.join()
    inbox.server_close()


def test_a_failed_run_is_told_to_the_users_notification_block(
    server: PrefectServer, webhook: tuple[str, "Queue[dict[str, str]]"]
) -> None:
    address, arrived = webhook
    block = CustomWebhookNotificationBlock(
        name="ops",
        url=address,
        method="POST",
        json_data={"subject": "{{subject}}", "body": "{{body}}"},
    )
    block.save("ops", overwrite=True)
    deployed = deploy(
        packaged_folder(), ("process",), config=RetrainConfig(), notify="custom-webhook/ops"
    )
    assert "pvar-run-failed" in deployed.automations

    @flow(name="pipeline", persist_result=False)
    def failing() -> None:
        raise ValueError("no space left on the training volume")

    with pytest.raises(ValueError, match="no space left"):
        failing()
    message = arrived.get(timeout=NEVER_SECONDS)
    assert message["subject"] == "pvar: pipeline Failed"
    assert "ValueError: no space left on the training volume" in message["body"]
    assert "/runs/flow-run/" in message["body"]
