"""Stages that run as runs of their own deployments, on the pools of `runtime.placement`.

The pipeline starts `workers` runs of the deployment `stage/stage-pool` and passes the configuration
and the node's name. The runs claim shards by lease and write to the store. The result is read from
the store, independently of the states of the runs in Prefect.

    completed   one run completed and the artifact is complete; the other runs are not awaited
    waiting     a run completed, and the store has a record of what the artifact waits for
    failed      every run failed or crashed: an error with their messages
    stopped     every run was cancelled or deleted, which a person does: an error of its own
    too long    the runs are cancelled after `timeout_seconds`: an error, and another one if none
                of them had begun
    cancelled   ending the pipeline cancels its runs

`run_deployment` alone does not do this: it returns failed runs like results, and does not cancel a
run that takes too long. The automations `heartbeat-lost` and `start-lost` mark a run as Crashed if
its process died without reporting it.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

from flows.deployment_specs import stage_deployment
from flows.server import api_url, connected_client
from flows.wiring import Wiring
from pvar.artifacts import WaitingRecord
from pvar.config import PipelineConfig
from pvar.errors import (
    ConfigError,
    IncompleteError,
    PvarError,
    StageCancelledError,
    StageError,
    UnavailableError,
)
from pvar.placement import Placement
from tasks.engine.artifact import open_artifact
from tasks.engine.node import Node
from tasks.engine.progress_log import ProgressLog
from tasks.engine.stage import verified_manifest
from tasks.engine.stage_outcome import waiting_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Interval for polling the runs."""

GRACE_SECONDS = 60.0
"""If no worker picks up a run within this time, a warning is logged. Once the artifact is complete,
the other runs have the same time to finish."""


class StageDeployment(NamedTuple):
    """The deployment of a stage on a pool."""

    stage: str
    pool: str

    def __str__(self) -> str:
        return f"{self.stage}/{stage_deployment(self.stage, self.pool)}"


class PlacedRun(NamedTuple):
    """A run that the pipeline started, and its current state at the server."""

    id: UUID
    name: str
    state: str
    """Name of Prefect's state; `deleted` if the server no longer has the run."""
    message: str
    is_taken: bool
    """Whether a worker has picked it up. The worker may still be pulling the image."""
    is_started: bool
    is_over: bool
    is_completed: bool
    is_cancelled: bool
    """Cancelled or deleted, both by a person."""


def is_complete(node: Node, wiring: Wiring) -> bool:
    """Whether the node's artifact is complete and was made from the current inputs."""
    cache = wiring.settings.home
    try:
        inputs = {
            name: open_artifact(wiring.store, keys.stage, keys.digest, cache)
            for name, keys in node.inputs.items()
        }
    except IncompleteError:
        return False
    return verified_manifest(wiring.store, node.keys, inputs) is not None


def run_placed(
    node: Node, config: PipelineConfig, wiring: Wiring, *, parent_run: str | None
) -> WaitingRecord | None:
    """Make the node's artifact on the pool where its stage is placed.

    Returns what the artifact waits for, or None if it is complete. Raises StageError if no run of
    the stage completes in time, StageCancelledError if a person stopped all of them,
    UnavailableError if none began in time, IncompleteError if a run completed and the artifact is
    incomplete, and ConfigError if there is no server or deployment. When this function returns or
    raises, its runs are over or being cancelled.
    """
    placement = config.runtime.placement.of(node.stage.name)
    deployment = StageDeployment(node.stage.name, placement.pool)
    with _children(deployment, placement, node, config, parent_run) as started:
        children = _wait(started, placement, deployment)
    unfinished = "; ".join(
        f"run {child.name} is {child.state}: {child.message or 'no message'}"
        for child in children
        if not child.is_completed
    )
    if not any(child.is_completed for child in children):
        stopped = all(child.is_cancelled for child in children)
        kind = StageCancelledError if stopped else StageError
        raise kind(f"{node.name} on {deployment}: {unfinished}")
    if not is_complete(node, wiring):
        waiting = waiting_of(wiring.store, node.keys)
        if waiting is not None:
            return waiting
        raise IncompleteError(
            f"{node.name} on {deployment}: its run completed, but {node.keys.root} is not complete "
            f"in {wiring.store.uri}; check that the worker has the same PVAR_STORE_URI"
        )
    if unfinished:
        logger.warning("%s was completed without some workers: %s", node.name, unfinished)
    return None


@contextmanager
def _children(
    deployment: StageDeployment,
    placement: Placement,
    node: Node,
    config: PipelineConfig,
    parent_run: str | None,
) -> Iterator[list[UUID]]:
    """Start the runs. Those that are not over at the end of the body are cancelled."""
    parameters = {
        "config": config.model_dump(mode="json"),
        "node": node.name,
        "parent_run": parent_run,
    }
    attempt = uuid4()  # with the key of an earlier attempt, Prefect would return its runs
    started: list[UUID] = []
    try:
        for worker in range(1, placement.workers + 1):
            name = node.name if placement.workers == 1 else f"{node.name} {worker}"
            key = f"{attempt}/{node.keys.root}/{node.name}/{worker}"
            started.append(start_run(deployment, name, key, parameters))
        yield started
    finally:
        cancel_runs(started)


def start_run(deployment: StageDeployment, name: str, key: str, parameters: dict[str, Any]) -> UUID:
    """Start a run of the deployment. ConfigError if there is none."""
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    from flows.run_names import current_tags

    try:
        run = run_deployment(
            str(deployment),
            parameters=parameters,
            flow_run_name=name,
            tags=current_tags(),
            idempotency_key=key,  # a repeated request must not start a second run
            timeout=0,
        )
    except ObjectNotFound as error:
        raise _no_deployment(deployment) from error
    started: UUID = run.id  # type: ignore[union-attr]
    return started


def find_deployment(
    client: "SyncPrefectClient", deployment: StageDeployment
) -> "DeploymentResponse":
    """The deployment as the server has it. ConfigError if there is none."""
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(str(deployment))
    except ObjectNotFound as error:
        raise _no_deployment(deployment) from error


def _no_deployment(deployment: StageDeployment) -> ConfigError:
    stage, pool = deployment.stage, deployment.pool
    return ConfigError(
        f"runtime.placement.{stage}.pool is {pool}, but the Prefect server at {api_url()} has "
        f"no deployment {deployment}; create it: pvar deploy --pool {pool}"
    )


def _wait(
    started: list[UUID], placement: Placement, deployment: StageDeployment
) -> list[PlacedRun]:
    """Wait until all runs are over, or one completed and the others had time to finish."""
    began = time.monotonic()
    completed_at: float | None = None
    is_warned = False
    with connected_client() as client, ProgressLog(str(deployment)) as progress:
        while True:
            children = look_at_runs(client, started)
            progress.say(_states(children))
            now = time.monotonic()
            if all(child.is_over for child in children):
                return children
            if any(child.is_completed for child in children):
                completed_at = completed_at or now
                is_busy = any(child.is_started and not child.is_over for child in children)
                if not is_busy or now - completed_at > GRACE_SECONDS:
                    return children
            elif placement.timeout_seconds is not None and now - began > placement.timeout_seconds:
                kind = StageError if any(each.is_started for each in children) else UnavailableError
                raise kind(_too_long(deployment, placement.timeout_seconds, children))
            if not is_warned and now - began > GRACE_SECONDS:
                is_warned = True
                if not any(child.is_taken for child in children):
                    logger.warning("%s", _not_picked_up(deployment))
            time.sleep(POLL_SECONDS)


def _too_long(deployment: StageDeployment, seconds: float, children: list[PlacedRun]) -> str:
    return (
        f"{deployment} took longer than {seconds:g} s ({_states(children)}); its runs are "
        "cancelled; increase "
        f"runtime.placement.{deployment.stage}.timeout_seconds, or add workers"
    )


def _states(children: list[PlacedRun]) -> str:
    return ", ".join(f"{child.name} is {child.state}" for child in children)


def _not_picked_up(deployment: StageDeployment) -> str:
    return (
        f"no worker has picked up {deployment} for {GRACE_SECONDS:.0f} s; check that a worker "
        "polls its pool, or start one: prefect worker start --pool pvar-" + deployment.pool
    )


def look_at_runs(client: "SyncPrefectClient", started: list[UUID]) -> list[PlacedRun]:
    """The current states of the runs."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    by_id = FlowRunFilter(id=FlowRunFilterId(any_=list(started)))
    found = {run.id: run for run in client.read_flow_runs(flow_run_filter=by_id, limit=200)}
    return [_child(each, found.get(each)) for each in started]


def _child(run_id: UUID, run: "FlowRun | None") -> PlacedRun:
    state = run.state if run is not None else None
    if run is None or state is None:
        gone = "the run was deleted at the server"
        return PlacedRun(run_id, str(run_id), "deleted", gone, True, True, True, False, True)
    return PlacedRun(
        id=run_id,
        name=run.name,
        state=state.name or state.type.value,
        message=state.message or "",
        is_taken=not state.is_scheduled(),
        is_started=not (state.is_scheduled() or state.is_pending()),
        is_over=state.is_final(),
        is_completed=state.is_completed(),
        is_cancelled=state.is_cancelled(),
    )


def cancel_runs(started: list[UUID]) -> None:
    """Cancel the runs that are not over. A server that cannot be reached is only logged.

    It opens a new client, because a signal may have interrupted a call of the other one.
    """
    from httpx import HTTPError
    from prefect.states import Cancelling

    if not started:
        return
    try:
        with connected_client() as client:
            for child in look_at_runs(client, started):
                if not child.is_over:
                    logger.info("cancelling run %s", child.name)
                    client.set_flow_run_state(child.id, Cancelling())
    except (HTTPError, PvarError) as error:
        logger.warning("could not cancel %s: %s", ", ".join(map(str, started)), error)
