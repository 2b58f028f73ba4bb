"""What prefect.yaml says: pools, deployments and their schedules, read and validated.

Everything is checked before anything is registered (`flows/deployments.py`).
"""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from pvar.errors import ConfigError
from tasks.engine.stage import Image
from tasks.graph import STAGES

PoolType = Literal["process", "docker", "kubernetes"]

STAGE_ENTRYPOINTS = "flows.stages."
"""Prefix of the entry points of stages."""


def stage_deployment(stage: str, pool: str) -> str:
    """Name of a stage's deployment on a pool."""
    return f"{stage}-{pool}"


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkPoolSpec(_Spec):
    """The work pool of a deployment."""

    name: str
    job_variables: dict[str, JsonValue] = {}


class ScheduleSpec(_Spec):
    """The cron schedule of a deployment."""

    cron: str
    timezone: str = "UTC"

    @model_validator(mode="after")
    def _is_one_of_prefects(self) -> Self:
        """Before anything is registered: Prefect would refuse it half-way."""
        from prefect.client.schemas.schedules import CronSchedule

        try:
            CronSchedule(cron=self.cron, timezone=self.timezone)
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(
                f"{said}; give five fields of cron, and a time zone such as Europe/Zurich"
            ) from error
        return self


class LimitSpec(_Spec):
    """Maximum number of concurrent runs, and what happens to further runs."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"]


class DeploymentSpec(_Spec):
    """One entry of `deployments` in prefect.yaml."""

    name: str
    """Name of the deployment; for a stage, of its pool (`deployed_name`)."""
    entrypoint: str
    """Module path of the flow. The package is installed wherever the flow runs."""
    work_pool: WorkPoolSpec | None = None
    """None means the first of the chosen pools; for a stage, the pool of the entry's name."""
    tags: list[str] = []
    schedules: list[ScheduleSpec] = []
    concurrency_limit: LimitSpec | None = None

    @property
    def flow(self) -> str:
        """Name of the flow."""
        return self.entrypoint.rpartition(".")[2].replace("_", "-")

    @property
    def deployed_name(self) -> str:
        """Name of the deployment at the server: that of a stage names both, stage and pool."""
        return stage_deployment(self.flow, self.name) if self.is_stage else self.name

    @property
    def is_stage(self) -> bool:
        """Whether it runs one stage, for pipelines that place the stage on its pool."""
        return self.entrypoint.startswith(STAGE_ENTRYPOINTS)


class StagePoolSpec(_Spec):
    """A pool on which every stage has a deployment."""

    name: str
    """Name of the pool in `runtime.placement`."""
    work_pool: WorkPoolSpec
    """`{image}` in its job variables is replaced by the image of the stage."""
    with_gpu: dict[str, JsonValue] = {}
    """Job variables of stages that use a GPU."""

    def of_image(self, image: Image, *, wants_gpu: bool) -> WorkPoolSpec:
        """The pool with the job variables for a container of this image."""
        given = {
            name: value.replace("{image}", image) if isinstance(value, str) else value
            for name, value in self.work_pool.job_variables.items()
        }
        variables = given | self.with_gpu if wants_gpu else given
        return self.work_pool.model_copy(update={"job_variables": variables})


class Project(_Spec):
    """prefect.yaml."""

    name: str
    stages: list[StagePoolSpec]
    deployments: list[DeploymentSpec]
    """The other flows, and stages with a deployment that differs from the derived one."""

    def stage_deployments(self) -> list[DeploymentSpec]:
        """One deployment per stage and pool. An explicit entry replaces the derived one."""
        own = {(each.flow, each.name): each for each in self.deployments if each.is_stage}
        derived = {
            (stage.name, pool.name): DeploymentSpec(
                name=pool.name,
                entrypoint=f"{STAGE_ENTRYPOINTS}{stage.name}",
                work_pool=pool.of_image(stage.image, wants_gpu=stage.wants_gpu),
                tags=["pvar"],
            )
            for pool in self.stages
            for stage in STAGES.values()
        }
        for key, spec in own.items():
            if spec.work_pool is None and key in derived:
                own[key] = spec.model_copy(update={"work_pool": derived[key].work_pool})
        return list((derived | own).values())


def packaged_folder() -> Path:
    """The folder that ships with the project."""
    return Path(str(files("infra")))


def read_project(folder: Path) -> Project:
    """Read the folder's prefect.yaml. Raises ConfigError if it is invalid."""
    path = folder / "prefect.yaml"
    try:
        return Project.model_validate(read_yaml_mapping(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        said = fault["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {where}: {said}") from error


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError if there is none."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} contains a {type(tree).__name__}; it must be a YAML mapping")
    return tree
