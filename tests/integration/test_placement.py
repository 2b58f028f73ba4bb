"""Stages as runs of their own on a real Prefect server: no end of a run goes unnoticed."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
)
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Completed

from pvar.errors import (
    ConfigError,
    IncompleteError,
    StageCancelledError,
    StageError,
    UnavailableError,
)
from pvar.placement import Placement
from tasks.engine.stage_outcome import Waiting, record_waiting, waiting_of
from tests.services import stage_flows
from tests.services.prefect_server import ROOT, PrefectServer
from tests.services.processes import wait_until
from tests.workflow import start_workflow

pytestmark = [
    pytest.mark.slow,
    # Raised inside Prefect.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def pools(running_server: PrefectServer) -> Iterator[None]:
    """`manned` has a worker; on `unmanned` nobody takes a run, so tests decide what it comes to."""
    with running_server.is_ours():
        with get_client(sync_client=True) as client:
            for name in ("manned", "unmanned"):
                client.create_work_pool(WorkPoolCreate(name=name, type="process"), overwrite=True)
        stage_flows.deploy("failing", "failing", "manned")
        stage_flows.deploy("endless", "endless", "manned")
        stage_flows.deploy("endless", "unmanned", "unmanned")
        stage_flows.deploy("parent", "parent", "manned")
    with running_server.worker("manned", PYTHONPATH=str(ROOT)):
        yield


@pytest.fixture
def home(tmp_path: Path, pools: None, server: PrefectServer) -> Path:
    return tmp_path / "home"


def children_of(pool: str) -> list[FlowRun]:
    """Runs of sample on the pool, oldest first."""
    by_name = DeploymentFilter(name=DeploymentFilterName(any_=[f"sample-{pool}"]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(deployment_filter=by_name)
    return sorted(runs, key=lambda run: str(run.created))


def state_of(run: FlowRun) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    return state.name or "" if state is not None else ""


def wait_for(is_so: Callable[[], bool]) -> None:
    """Each look asks the server, so not too often."""
    wait_until(is_so, "the server's word", pause_seconds=0.5)


def meanwhile(act: Callable[[SyncPrefectClient, FlowRun], object], server: PrefectServer) -> None:
    """Once there is a new run on `unmanned`, let `act` decide about it."""
    known = {run.id for run in children_of("unmanned")}

    def new_runs() -> list[FlowRun]:
        return [run for run in children_of("unmanned") if run.id not in known]

    def watch() -> None:
        with server.is_ours():
            wait_for(lambda: bool(new_runs()))
            with get_client(sync_client=True) as client:
                act(client, new_runs()[0])

    threading.Thread(target=watch, daemon=True).start()


def test_what_a_failing_child_said_is_the_parents_error_and_a_retry_is_a_new_child(
    home: Path,
) -> None:
    @flow(retries=1, persist_result=False)
    def retrying() -> None:
        stage_flows.hand_over(home, "failing")

    with pytest.raises(
        StageError, match=r"sample on sample/sample-failing: .*sample: out of memory"
    ):
        retrying()
    children = children_of("failing")
    assert [state_of(child) for child in children] == ["Failed", "Failed"]
    assert len({child.idempotency_key for child in children}) == 2


def test_a_cancelled_parent_cancels_its_child(home: Path) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("parent/parent")
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters={"home": str(home), "pool": "endless"}
        )
        wait_until(
            lambda: (
                bool(children_of("endless")) and state_of(children_of("endless")[0]) == "Running"
            ),
            "a running child",
        )
        client.set_flow_run_state(run.id, Cancelling())
        (child,) = children_of("endless")
        wait_until(lambda: state_of(child) == "Cancelled", "end of the child")
        wait_until(lambda: state_of(run) == "Cancelled", "end of the parent")


def test_a_child_that_takes_too_long_is_cancelled(home: Path) -> None:
    with pytest.raises(
        UnavailableError, match=r"sample/sample-unmanned took longer than 2 s \(sample is "
    ):
        stage_flows.hand_over(home, "unmanned", timeout_seconds=2)
    assert state_of(children_of("unmanned")[-1]) == "Cancelled"


def cancel(client: SyncPrefectClient, run: FlowRun) -> None:
    client.set_flow_run_state(run.id, Cancelling())


def delete(client: SyncPrefectClient, run: FlowRun) -> None:
    client.delete_flow_run(run.id)


@pytest.mark.parametrize(("act", "state"), [(cancel, "Cancelled"), (delete, "deleted")])
def test_a_child_that_somebody_ended_is_an_error(
    home: Path, server: PrefectServer, act: Callable[[SyncPrefectClient, FlowRun], Any], state: str
) -> None:
    meanwhile(act, server)
    with pytest.raises(
        StageCancelledError, match=rf"sample on sample/sample-unmanned: run .* is {state}"
    ):
        stage_flows.hand_over(home, "unmanned")


def test_a_child_that_says_completed_without_an_artifact_is_an_error(
    home: Path, server: PrefectServer
) -> None:
    def complete(client: SyncPrefectClient, run: FlowRun) -> None:
        client.set_flow_run_state(run.id, Completed(), force=True)

    meanwhile(complete, server)
    with pytest.raises(IncompleteError, match=r"sample/[0-9a-f]+ is not complete in file://"):
        stage_flows.hand_over(home, "unmanned")


def test_a_child_that_waits_is_neither_failed_nor_incomplete_and_is_asked_anew(
    home: Path, server: PrefectServer
) -> None:
    started = start_workflow(home)
    keys = started.nodes["sample"].keys

    def wait(client: SyncPrefectClient, run: FlowRun) -> None:
        record_waiting(started.store, keys, Waiting("labels", "pvar label"))
        client.set_flow_run_state(run.id, Completed(name="Waiting"), force=True)

    for _ in range(2):  # by a second child, not by the first one's word
        num_children = len(children_of("unmanned"))
        meanwhile(wait, server)
        waiting = stage_flows.hand_over(home, "unmanned")
        assert waiting == waiting_of(started.store, keys)
        assert waiting is not None
        assert waiting.what == "labels"
        assert len(children_of("unmanned")) == num_children + 1


def test_a_stage_without_a_deployment_names_the_command_that_makes_it(home: Path) -> None:
    with pytest.raises(ConfigError, match="create it: pvar deploy --pool mars"):
        stage_flows.hand_over(home, "mars")


def test_workers_without_a_pool_are_refused() -> None:
    with pytest.raises(ValueError, match=r"workers is 3 .* pool is inline"):
        Placement(workers=3)
