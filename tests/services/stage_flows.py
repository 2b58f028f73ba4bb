"""Stage flows that go wrong, and a pipeline that hands a stage over, for tests of placement.

A worker imports them by name; `deploy` puts them where `flows/placed_stages.py` looks for a stage.
"""

import time
from pathlib import Path

from prefect import flow

from flows.deployment_specs import DeploymentSpec, WorkPoolSpec, stage_deployment
from flows.deployments import register_deployment
from flows.placed_stages import run_placed
from flows.server import connected_client
from pvar.artifacts import WaitingRecord
from pvar.errors import StageError
from tests.workflow import start_workflow


@flow(name="sample", persist_result=False)
def failing(config: dict, node: str, parent_run: str | None) -> None:  # type: ignore[type-arg]
    """What a stage does whose model does not fit into memory."""
    raise StageError(f"{node}: out of memory")


@flow(name="sample", persist_result=False)
def endless(config: dict, node: str, parent_run: str | None) -> None:  # type: ignore[type-arg]
    """A stage that takes very long."""
    time.sleep(3600)


@flow(name="parent", persist_result=False)
def parent(home: str, pool: str) -> None:
    """A pipeline that has come to its stage sample."""
    hand_over(Path(home), pool)


def hand_over(home: Path, pool: str, **placement: float) -> WaitingRecord | None:
    """Run node `sample` of the small workflow on the deployment `sample/sample-pool`."""
    started = start_workflow(home, **{"runtime.placement": {"sample": {"pool": pool, **placement}}})
    return run_placed(started.nodes["sample"], started.config, started.wiring, parent_run=None)


def deploy(function: str, pool: str, work_pool: str) -> None:
    """Register a flow of this file, on a work pool. One named `parent` is no stage."""
    spec = DeploymentSpec(
        name=pool if function == "parent" else stage_deployment("sample", pool),
        entrypoint=f"tests.services.stage_flows.{function}",
        work_pool=WorkPoolSpec(name=work_pool),
        tags=["pvar"],
    )
    with connected_client() as client:
        register_deployment(client, spec, {})
