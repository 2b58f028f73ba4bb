"""Ask the workers of placed stages, before a run begins, whether they can run them.

The pipeline starts a run of one of the stages' own deployments for each distinct pair of work pool
and job variables (image, resources), with the names of all nodes that will run there. So what is
asked is what will work: that container, on that hardware, with those variables. The run checks
(`flows/preflight.py`), makes nothing, and fails with everything that is missing. It also looks for
an object that the pipeline has put into its store, to see that both have the same.

A worker that takes no run within a minute, because it is busy or is started later, is not asked,
and a warning says so. Then each stage finds out when it begins, as it does in any case.
"""

import json
import logging
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict

from flows.placed_stages import (
    POLL_SECONDS,
    PlacedRun,
    StageDeployment,
    cancel_runs,
    find_deployment,
    look_at_runs,
    start_run,
)
from flows.preflight import problems_here
from flows.server import connected_client
from flows.wiring import Wiring
from infra.outages import names_outage
from infra.preconditions import Problem, refuse
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, MissingError, NotFoundError, PvarError, UnavailableError
from tasks.engine.node import Node
from tasks.engine.progress_log import ProgressLog
from tasks.graph import plan_nodes

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

logger = logging.getLogger(__name__)

FOLDER = "checks"
"""Of the objects by which a worker knows the pipeline's store."""

LEFT_AFTER = timedelta(days=1)
"""An object of this age was left by a pipeline that was killed. The clocks of its machine and of
the store may differ."""

UNTAKEN_SECONDS = 60.0
"""A worker that takes no run within this time is not asked."""

CHECK_SECONDS = 900.0
"""Limit of a check. Before, its container may be pulled, and a machine for it started."""

RAISED = "Flow run encountered an exception: "
"""What Prefect writes before the message of an error."""


class StageCheck(BaseModel):
    """What a worker is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[str, ...]
    """Nodes that it will run."""
    object: str
    """Key of an object that the pipeline has put into its store."""


class _Group(NamedTuple):
    """Nodes that run alike."""

    deployment: StageDeployment
    """Of one of their stages."""
    nodes: list[str]

    def __str__(self) -> str:
        return f"pool {self.deployment.pool} ({', '.join(self.nodes)})"


def problems_elsewhere(
    config: PipelineConfig, nodes: Sequence[Node], wiring: Wiring
) -> list[Problem]:
    """What the workers of these placed nodes lack, by what they say themselves."""
    with connected_client() as client:
        groups, problems = _groups(client, config, nodes)
    if not groups:
        return problems
    for info in list(wiring.store.list(f"{FOLDER}/")):
        if wiring.clock() - info.modified > LEFT_AFTER:
            wiring.store.delete(info.key)
    key = f"{FOLDER}/{uuid4().hex}.json"
    wiring.store.write(key, b"{}")
    started: dict[UUID, _Group] = {}
    try:
        for group in groups:
            check = StageCheck(nodes=tuple(group.nodes), object=key)
            parameters = {
                "config": config.model_dump(mode="json"),
                "check": check.model_dump(mode="json"),
            }
            name = f"check {', '.join(group.nodes)}"[:200]
            run = start_run(group.deployment, name, f"{key}/{group.deployment}", parameters)
            started[run] = group
        return problems + _wait(started)
    finally:
        cancel_runs(list(started))
        wiring.store.delete(key)


def check_worker(config: PipelineConfig, check: StageCheck, wiring: Wiring) -> None:
    """Raise one error for everything that this worker lacks for the nodes of a pinned
    configuration."""
    problems = []
    try:
        wiring.store.read(check.object)
    except NotFoundError:
        problems.append(
            Problem(
                "PVAR_STORE_URI",
                ConfigError(
                    f"this worker's store is {wiring.store.uri}, which is not the pipeline's; give "
                    "the worker the same PVAR_STORE_URI"
                ),
            )
        )
    except PvarError as error:
        problems.append(Problem("PVAR_STORE_URI", error))
    try:
        logger.info("MLflow: experiment %s", wiring.tracking.experiment)
    except PvarError as error:
        problems.append(Problem("PVAR_MLFLOW_TRACKING_URI", error))
    nodes = plan_nodes(config)
    refuse(problems + problems_here(config, [nodes[name] for name in check.nodes], wiring))


def _groups(
    client: "SyncPrefectClient", config: PipelineConfig, nodes: Iterable[Node]
) -> tuple[list[_Group], list[Problem]]:
    """The nodes by work pool and job variables, and stages without a deployment."""
    groups: dict[str, _Group] = {}
    missing: dict[StageDeployment, ConfigError] = {}
    for node in nodes:
        pool = config.runtime.placement.of(node.stage.name).pool
        deployment = StageDeployment(node.stage.name, pool)
        try:
            found = find_deployment(client, deployment)
        except ConfigError as error:
            missing[deployment] = error
            continue
        where = json.dumps([found.work_pool_name, found.job_variables], sort_keys=True)
        groups.setdefault(where, _Group(deployment, [])).nodes.append(node.name)
    problems = [
        Problem(f"runtime.placement.{deployment.stage}", error)
        for deployment, error in missing.items()
    ]
    return list(groups.values()), problems


def _wait(started: dict[UUID, _Group]) -> list[Problem]:
    """What the checks found, once they are over. Those that take too long are given up."""
    began = time.monotonic()
    problems: list[Problem] = []
    left = dict(started)
    names = ", ".join(str(group) for group in started.values())
    with connected_client() as client, ProgressLog("check", f"asking the workers of {names}"):
        while True:
            seconds = time.monotonic() - began
            for run in look_at_runs(client, list(left)):
                group = left[run.id]
                if run.is_over:
                    problems += _found(group, run)
                elif seconds > (CHECK_SECONDS if run.is_taken else UNTAKEN_SECONDS):
                    logger.warning("%s", _not_asked(group, run, seconds))
                else:
                    continue
                del left[run.id]
            if not left:
                return problems
            time.sleep(POLL_SECONDS)


def _found(group: _Group, run: PlacedRun) -> list[Problem]:
    if run.is_completed:
        return []
    if run.is_cancelled:
        logger.warning("%s was not asked: the check was cancelled", group)
        return []
    message = run.message.removeprefix(RAISED) or f"the check ended as {run.state}"
    kind = UnavailableError if names_outage(message) else MissingError
    return [Problem(str(group), kind(message))]


def _not_asked(group: _Group, run: PlacedRun, seconds: float) -> str:
    if run.is_taken:
        return f"{group} was not asked: the check took longer than {seconds:.0f} s"
    return (
        f"{group} was not asked whether it has what it needs: no worker took the check in "
        f"{seconds:.0f} s; if none polls the pool, start one: "
        f"prefect worker start --pool pvar-{group.deployment.pool}"
    )
