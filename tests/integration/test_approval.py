"""The approval flow on Prefect's server: it is suspended, asked, and started again."""

from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow

from flows.approval import approve_promotion, request_approval
from pvar.ports import Store
from tests.services.prefect_server import PrefectServer
from tests.services.registry import MODEL, RegistryNeighbours

pytestmark = [
    pytest.mark.slow,
    # Raised inside Prefect.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def neighbours(
    tmp_path: Path, file_store: Store, monkeypatch: pytest.MonkeyPatch, server: PrefectServer
) -> RegistryNeighbours:
    neighbours = RegistryNeighbours(tmp_path, file_store)
    for name, value in neighbours.environment().items():
        monkeypatch.setenv(name, value)
    neighbours.register(
        "train/aa",
        gate="passed",
        opponent="bundled:start#start-1",
        win_rate="0.6100",
        win_rate_lower="0.5300",
        win_rate_upper="0.6800",
    )
    return neighbours


def start() -> UUID:
    """A run of a deployment, as the UI makes one."""
    with get_client(sync_client=True) as client:
        flow = client.create_flow(approve_promotion)
        deployment = client.create_deployment(flow_id=flow, name="approve-promotion")
        run = client.create_flow_run_from_deployment(
            deployment, parameters={"model_name": MODEL, "version": 1}
        )
        return run.id


def named(name: str) -> FlowRunFilter:
    return FlowRunFilter(name=FlowRunFilterName(any_=[name]))


def work_on(run: UUID) -> State[Any]:
    """What a worker's process does with a run that is due."""
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(run)
    with suppress(Pause):  # the process ends so
        run_flow(approve_promotion, flow_run=flow_run, parameters=flow_run.parameters)
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
    assert state is not None
    return state


def answer(run: UUID, **form: str) -> None:
    """What the UI sends when the form is submitted."""
    with get_client(sync_client=True) as client:
        response = client.resume_flow_run(run, run_input=form)
    assert response.status.name == "ACCEPT", response.details


def test_an_approved_version_is_champion_and_the_note_is_kept(
    neighbours: RegistryNeighbours,
) -> None:
    run = start()
    state = work_on(run)
    assert state.is_paused()
    assert neighbours.alias("champion") is None
    answer(run, approver="Bo", decision="approve", note="read fifty answers")
    assert work_on(run).is_completed()
    assert neighbours.alias("champion") == 1
    (move,) = neighbours.registry().history(MODEL)
    assert (move.by, move.reason) == ("Bo", "approved: read fifty answers")


def test_a_declined_version_stays_registered(neighbours: RegistryNeighbours) -> None:
    run = start()
    assert work_on(run).is_paused()
    answer(run, approver="Bo", decision="decline", note="too long")
    assert work_on(run).is_completed()
    assert neighbours.alias("champion") is None
    assert neighbours.moves() == []


def test_the_flow_that_asks_is_started_where_it_is_deployed(
    server: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        request_approval(MODEL, 7)
        assert f"pvar approve {MODEL} 7 --note" in caplog.text
        assert client.read_flow_runs(flow_run_filter=named(f"{MODEL} version 7")) == []
        start()
        request_approval(MODEL, 7)
        (run,) = client.read_flow_runs(flow_run_filter=named(f"{MODEL} version 7"))
    assert run.parameters == {"model_name": MODEL, "version": 7}
    assert run.state is not None
    assert run.state.is_scheduled()


@pytest.mark.parametrize(
    "form",
    [
        {"approver": "Bo", "decision": "approve"},
        {"approver": "", "decision": "approve", "note": "fine"},
        {"approver": "Bo", "decision": "perhaps", "note": "fine"},
    ],
)
def test_a_form_that_is_not_filled_in_is_sent_back(
    neighbours: RegistryNeighbours, form: dict[str, str]
) -> None:
    run = start()
    assert work_on(run).is_paused()
    with get_client(sync_client=True) as client:
        response = client.resume_flow_run(run, run_input=form)
    assert response.status.name == "REJECT"
    assert neighbours.alias("champion") is None
