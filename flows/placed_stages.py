"""Stages that run elsewhere: as runs of their own deployments, on the pools of `runtime.placement`.

The pipeline starts the deployment `stage/pool`, as many times at once as there are workers, and
hands over the configuration and the node's name. The runs share the shards by lease and write to
the store; what the stage made is read there, not from what Prefect says of its runs.

    completed   one run is enough, if the artifact is complete then; the others are not waited for
    waiting     a run completed, the artifact is not there, and the store says what it waits for
    not so      every run failed, crashed, was cancelled or deleted: an error with what each said
    too long    after `timeout_seconds` the runs are cancelled
    cancelled   whoever ends the pipeline ends its runs, too

`run_deployment` alone does none of this: it returns failed runs as if they were results, and leaves
a run that takes too long to itself. A run whose process died without a word is marked Crashed by
the automations `heartbeat-lost` and `start-lost`, and so ends here.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

from flows.server import api_url, connected_client
from flows.wiring import Wiring
from pvar.artifacts import WaitingRecord
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, IncompleteError, PvarError, StageError
from pvar.placement import Placement
from tasks.engine.artifact import open_artifact
from tasks.engine.progress_log import ProgressLog
from tasks.engine.stage import verified_manifest
from tasks.engine.stage_outcome import waiting_of
from tasks.graph import Node

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Pause between two looks at the runs."""

PATIENCE_SECONDS = 60.0
"""How long nobody may take a run before that is told, and how long the other workers may tidy up
once the artifact is complete."""


class _Child(NamedTuple):
    """A run that was started here, and what the server says of it now."""

    id: UUID
    name: str
    state: str
    """Name of Prefect's state; `deleted` if the server no longer has the run."""
    message: str
    is_taken: bool
    """By a worker, which may still be fetching the image."""
    is_started: bool
    is_over: bool
    is_completed: bool


def is_complete(node: Node, wiring: Wiring) -> bool:
    """Whether the node's artifact is there, in full and made from today's inputs."""
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
    """Have the node's artifact made on the pool of its stage's placement; what it waits for if so.

    Raises StageError when no run of the stage completes (or not in time), IncompleteError when one
    did and the artifact is not there, ConfigError without server or deployment. Its runs are over,
    or being cancelled, when it returns or raises.
    """
    placement = config.runtime.placement.of(node.stage.name)
    deployment = f"{node.stage.name}/{placement.pool}"
    with _children(deployment, placement, node, config, parent_run) as started:
        children = _wait(started, placement, deployment)
    unfinished = "; ".join(
        f"run {child.name} is {child.state}: {child.message or 'no message'}"
        for child in children
        if not child.is_completed
    )
    if not any(child.is_completed for child in children):
        raise StageError(f"{node.name} on {deployment}: {unfinished}")
    if not is_complete(node, wiring):
        waiting = waiting_of(wiring.store, node.keys)
        if waiting is not None:
            return waiting
        raise IncompleteError(
            f"{node.name} on {deployment}: its run completed, but {node.keys.root} is not complete "
            f"in {wiring.store.uri}; check that PVAR_STORE_URI is the same there"
        )
    if unfinished:
        logger.warning("%s was completed without some workers: %s", node.name, unfinished)
    return None


@contextmanager
def _children(
    deployment: str,
    placement: Placement,
    node: Node,
    config: PipelineConfig,
    parent_run: str | None,
) -> Iterator[list[UUID]]:
    """The runs, started; those that are not over at the end of the body are cancelled."""
    parameters = {
        "config": config.model_dump(mode="json"),
        "node": node.name,
        "parent_run": parent_run,
    }
    attempt = uuid4()  # an earlier attempt's key would bring back its runs, failed or waiting
    started: list[UUID] = []
    try:
        for worker in range(1, placement.workers + 1):
            name = node.name if placement.workers == 1 else f"{node.name} {worker}"
            key = f"{attempt}/{node.keys.root}/{node.name}/{worker}"
            started.append(_start(deployment, name, key, parameters))
        yield started
    finally:
        _cancel(started)


def _start(deployment: str, name: str, key: str, parameters: dict[str, Any]) -> UUID:
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    try:
        run = run_deployment(
            deployment,
            parameters=parameters,
            flow_run_name=name,
            idempotency_key=key,  # a repeated request must not start a second run
            timeout=0,
        )
    except ObjectNotFound as error:
        stage, _, pool = deployment.partition("/")
        raise ConfigError(
            f"runtime.placement.{stage}.pool is {pool}, but the Prefect server at {api_url()} has "
            f"no deployment {deployment}; make it: pvar deploy --pool {pool}"
        ) from error
    started: UUID = run.id  # type: ignore[union-attr]
    return started


def _wait(started: list[UUID], placement: Placement, deployment: str) -> list[_Child]:
    """Until all runs are over, or one completed and the others had time to."""
    began = time.monotonic()
    completed_at: float | None = None
    is_told = False
    with connected_client() as client, ProgressLog(deployment) as progress:
        while True:
            children = _look(client, started)
            progress.say(_states(children))
            now = time.monotonic()
            if all(child.is_over for child in children):
                return children
            if any(child.is_completed for child in children):
                completed_at = completed_at or now
                is_busy = any(child.is_started and not child.is_over for child in children)
                if not is_busy or now - completed_at > PATIENCE_SECONDS:
                    return children
            elif placement.timeout_seconds is not None and now - began > placement.timeout_seconds:
                raise StageError(_too_long(deployment, placement.timeout_seconds, children))
            if not is_told and now - began > PATIENCE_SECONDS:
                is_told = True
                if not any(child.is_taken for child in children):
                    logger.warning("%s", _nobody_took_it(deployment))
            time.sleep(POLL_SECONDS)


def _too_long(deployment: str, seconds: float, children: list[_Child]) -> str:
    return (
        f"{deployment} took longer than {seconds:g} s ({_states(children)}); its runs are "
        "cancelled; raise "
        f"runtime.placement.{deployment.partition('/')[0]}.timeout_seconds, or add workers"
    )


def _states(children: list[_Child]) -> str:
    return ", ".join(f"{child.name} is {child.state}" for child in children)


def _nobody_took_it(deployment: str) -> str:
    return (
        f"nobody has taken {deployment} for {PATIENCE_SECONDS:.0f} s: is a worker running on its "
        "pool? Start one: prefect worker start --pool pvar-" + deployment.partition("/")[2]
    )


def _look(client: "SyncPrefectClient", started: list[UUID]) -> list[_Child]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    by_id = FlowRunFilter(id=FlowRunFilterId(any_=list(started)))
    found = {run.id: run for run in client.read_flow_runs(flow_run_filter=by_id, limit=200)}
    return [_child(each, found.get(each)) for each in started]


def _child(run_id: UUID, run: "FlowRun | None") -> _Child:
    state = run.state if run is not None else None
    if run is None or state is None:
        gone = "somebody deleted the run at the server"
        return _Child(run_id, str(run_id), "deleted", gone, True, True, True, False)
    return _Child(
        id=run_id,
        name=run.name,
        state=state.name or state.type.value,
        message=state.message or "",
        is_taken=not state.is_scheduled(),
        is_started=not (state.is_scheduled() or state.is_pending()),
        is_over=state.is_final(),
        is_completed=state.is_completed(),
    )


def _cancel(started: list[UUID]) -> None:
    """Cancel the runs that are not over, as far as the server can be reached.

    With a client of its own: a signal may have interrupted the other one in the middle of a call.
    """
    from httpx import HTTPError
    from prefect.states import Cancelling

    if not started:
        return
    try:
        with connected_client() as client:
            for child in _look(client, started):
                if not child.is_over:
                    logger.info("cancelling run %s", child.name)
                    client.set_flow_run_state(child.id, Cancelling())
    except (HTTPError, PvarError) as error:
        logger.warning("could not cancel %s: %s", ", ".join(map(str, started)), error)
