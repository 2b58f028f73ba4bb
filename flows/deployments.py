"""Register work pools, deployments and automations at a Prefect server.

All definitions are read from one folder (`prefect.yaml`, `work_pools/`, `automations/`), by default
the one that ships with the project. Pools, deployments and automations are identified by their
names, so registering them again updates them and creates no duplicates. Where an earlier release of
pvar named a stage's deployment after its pool alone, it is replaced.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import JsonValue, ValidationError

from flows.deployment_form import arrange_form
from flows.deployment_specs import (
    DeploymentSpec,
    PoolType,
    Project,
    read_project,
    read_yaml_mapping,
)
from flows.server import connected_client
from pvar.errors import ConfigError
from pvar.placement import INLINE, Placement
from pvar.retrain_decision import RetrainConfig
from pvar.round_rules import RoundsConfig
from pvar.study_config import StudyConfig

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient

logger = logging.getLogger(__name__)

NOT_TRAINED: set[str] = set()
"""Groups that open with their main settings where nothing is trained."""

INSTALLED = [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
"""Pull steps that fetch no code. Without any pull step, a process worker copies the folder from
which the deployment was registered, including the virtual environment, before each run."""


class Deployed(NamedTuple):
    """Names of what was registered."""

    pools: tuple[str, ...]
    deployments: tuple[str, ...]
    automations: tuple[str, ...]


def deploy(
    folder: Path,
    pools: Sequence[PoolType],
    *,
    config: RetrainConfig,
    preset: str | None = None,
    notify: str | None = None,
) -> Deployed:
    """Register the pools, the stages' deployments on each pool, and the other flows on the first.

    `config`, placed for the first pool (`placed_for`), becomes the default parameters of the runs
    (the values of the form). `notify` is the `block-type/name` of a notification block. Without
    one, no message is sent about failures. Raises ConfigError if the server cannot be reached or a
    file cannot be read.
    """
    project = read_project(folder)
    config = placed_for(pools[0], config)
    with connected_client() as client:
        block = _block_id(client, notify) if notify is not None else None
        registered_pools = [_register_pool(client, folder, pool) for pool in pools]
        deployments = [
            register_deployment(
                client, _tagged(spec, config, preset), default_parameters(spec, config, preset)
            )
            for spec in _on(project, pools)
        ]
        for spec in _on(project, pools):
            _remove_old_name(client, spec)
        automations = _register_automations(client, folder, block)
    return Deployed(tuple(registered_pools), tuple(deployments), tuple(automations))


def placed_for(pool: PoolType, config: RetrainConfig) -> RetrainConfig:
    """The configuration with every inline stage moved to `pool`, if that is a pool of containers.

    The pipeline's container (`pvar:cpu`) has no packages that load models. Each stage's deployment
    names the image that has them. On a pool of processes the configuration stays the same.
    """
    if pool == "process":
        return config
    runtime = config.pipeline.runtime
    moved = {
        stage: Placement(pool=pool) for stage, each in runtime.placement if each.pool == INLINE
    }
    placement = runtime.placement.model_copy(update=moved)
    runtime = runtime.model_copy(update={"placement": placement})
    pipeline = config.pipeline.model_copy(update={"runtime": runtime})
    return config.model_copy(update={"pipeline": pipeline})


def _on(project: Project, pools: Sequence[PoolType]) -> list[DeploymentSpec]:
    """Deployments of stages on the chosen pools; other flows without a pool get the first one."""
    by_name = {pool.name: pool for pool in project.stages}
    for pool in pools:
        if pool not in by_name:
            raise ConfigError(
                f"prefect.yaml has no stages on pool {pool}; it has {', '.join(sorted(by_name))}"
            )
    home = by_name[pools[0]].of_image("cpu", wants_gpu=False)
    return [
        *(
            spec if spec.work_pool else spec.model_copy(update={"work_pool": home})
            for spec in project.deployments
            if not spec.is_stage
        ),
        *(spec for spec in project.stage_deployments() if spec.name in pools),
    ]


def _register_pool(client: "SyncPrefectClient", folder: Path, pool: PoolType) -> str:
    """Create the pool, or update only its job template: other changes were made in the UI."""
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    path = folder / "work_pools" / f"{pool}.json"
    try:
        template = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a valid job template: {error}") from error
    name = f"pvar-{pool}"
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=pool, base_job_template=template))
    except ObjectAlreadyExists:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return name


def register_deployment(
    client: "SyncPrefectClient", spec: DeploymentSpec, parameters: Mapping[str, JsonValue]
) -> str:
    """Create or update a deployment, and return its name as flow/deployment."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.flows import load_flow_from_entrypoint

    flow: Flow[..., Any] = load_flow_from_entrypoint(spec.entrypoint)
    full_name = f"{flow.name}/{spec.deployed_name}"
    paused, limit = _paused(client, full_name), spec.concurrency_limit
    if spec.is_stage:
        paused = paused or _paused(client, f"{flow.name}/{spec.name}")
    paused = paused or _Paused(False, frozenset())
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=spec.deployed_name,
        entrypoint=spec.entrypoint,
        pull_steps=INSTALLED,
        description=flow.description,
        tags=spec.tags,
        parameters=dict(parameters),
        parameter_openapi_schema=form_schema(flow, spec, parameters),
        enforce_parameter_schema=True,
        paused=paused.deployment,
        schedules=[
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=each.cron, timezone=each.timezone),
                active=each.cron not in paused.crons,
            )
            for each in spec.schedules
        ],
        concurrency_limit=limit.limit if limit else None,
        concurrency_options=ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy(limit.collision_strategy)
        )
        if limit
        else None,
        work_pool_name=spec.work_pool.name if spec.work_pool else None,
        job_variables=dict(spec.work_pool.job_variables) if spec.work_pool else {},
    )
    return full_name


def form_schema(
    flow: "Flow[..., Any]", spec: DeploymentSpec, parameters: Mapping[str, JsonValue]
) -> dict[str, Any]:
    """The schema of the deployment's form. A stage opens with its own settings."""
    schema = flow.parameters.model_dump_for_openapi()
    if spec.is_stage:
        schema["properties"].pop("check", None)  # for pipelines, not for people
    opened = {spec.flow} if spec.is_stage else NOT_TRAINED if spec.flow == "benchmark" else None
    return arrange_form(schema, parameters, opened)


class _Paused(NamedTuple):
    """What a person paused in the UI."""

    deployment: bool
    crons: frozenset[str]


def _paused(client: "SyncPrefectClient", full_name: str) -> _Paused | None:
    """What is paused now: registering the deployment again would otherwise resume it. None if there
    is no deployment of the name."""
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        return None
    crons = {
        each.schedule.cron
        for each in found.schedules
        if isinstance(each.schedule, CronSchedule) and not each.active
    }
    return _Paused(found.paused, frozenset(crons))


def _remove_old_name(client: "SyncPrefectClient", spec: DeploymentSpec) -> None:
    """Delete a stage's deployment of an earlier release, which had the name of its pool alone.

    It stays while it has runs that are not over: without it, no worker would start them.
    """
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import TERMINAL_STATES
    from prefect.exceptions import ObjectNotFound

    if not spec.is_stage:
        return
    old = f"{spec.flow}/{spec.name}"
    try:
        found = client.read_deployment_by_name(old)
    except ObjectNotFound:
        return
    if found.entrypoint != spec.entrypoint:  # somebody else's
        return
    unfinished = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[found.id])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(not_any_=sorted(TERMINAL_STATES, key=str))
            )
        ),
        limit=1,
    )
    if unfinished:
        logger.warning(
            "deployment %s is named %s now; the old one stays, because its run %s is not over; run "
            "pvar deploy again later",
            old,
            spec.deployed_name,
            unfinished[0].name,
        )
        return
    client.delete_deployment(found.id)
    logger.info("deployment %s is named %s now", old, spec.deployed_name)


def _tagged(spec: DeploymentSpec, config: RetrainConfig, preset: str | None) -> DeploymentSpec:
    """The deployment with tags of its preset and model. Stages are run with any of them."""
    from flows.run_names import tags_of

    if spec.is_stage:
        return spec
    return spec.model_copy(update={"tags": [*spec.tags, *tags_of(config.pipeline, preset)]})


def default_parameters(
    spec: DeploymentSpec, config: RetrainConfig, preset: str | None
) -> dict[str, JsonValue]:
    """The values with which the deployment's form opens."""
    match spec.flow:
        case "retrain":
            return {"config": config.model_dump(mode="json")}
        case "pipeline":
            return {"config": config.pipeline.model_dump(mode="json"), "preset": preset}
        case "rounds":
            repeated = RoundsConfig(pipeline=config.pipeline)
            return {"config": repeated.model_dump(mode="json")}
        case "compare":
            compared = StudyConfig(pipeline=config.pipeline)
            return {"config": compared.model_dump(mode="json")}
        case _:
            return {"config": config.pipeline.model_dump(mode="json")}


def _register_automations(
    client: "SyncPrefectClient", folder: Path, block: str | None
) -> list[str]:
    names = []
    for path in sorted((folder / "automations").glob("*.yaml")):
        tree = read_yaml_mapping(path)
        if _needs_block(tree) and block is None:
            continue
        _register_automation(client, path, _resolved(client, tree, block))
        names.append(str(tree["name"]))
    return names


def _register_automation(client: "SyncPrefectClient", path: Path, tree: dict[str, Any]) -> None:
    from prefect.events.schemas.automations import AutomationCore

    try:
        automation = AutomationCore.model_validate(tree)
    except ValidationError as error:
        fault = error.errors()[0]
        raise ConfigError(f"{path}: {fault['loc']}: {fault['msg']}") from error
    existing = client.read_automations_by_name(automation.name)
    if existing:
        kept = automation.model_copy(update={"enabled": existing[0].enabled})
        client.update_automation(existing[0].id, kept)
    else:
        client.create_automation(automation)


def _needs_block(tree: dict[str, Any]) -> bool:
    return any("block" in action for action in tree["actions"])


def _resolved(
    client: "SyncPrefectClient", tree: dict[str, Any], block: str | None
) -> dict[str, Any]:
    """The automation with ids in place of the names of deployments and blocks."""
    actions = []
    for action in tree["actions"]:
        resolved = dict(action)
        if name := resolved.pop("deployment", None):
            resolved["source"] = "selected"
            resolved["deployment_id"] = str(client.read_deployment_by_name(name).id)
        if "block" in resolved:
            del resolved["block"]
            resolved["block_document_id"] = block
        actions.append(resolved)
    return {**tree, "actions": actions}


def _block_id(client: "SyncPrefectClient", reference: str) -> str:
    from prefect.exceptions import ObjectNotFound

    kind, _, name = reference.partition("/")
    try:
        return str(client.read_block_document_by_name(name, kind).id)
    except ObjectNotFound as error:
        raise ConfigError(
            f"there is no block {reference!r}; create a notification block in the Prefect UI "
            "(Blocks) and give it as type/name, such as slack-webhook/ops"
        ) from error
