"""Whatever names stages names all of them: a stage that is added cannot be forgotten anywhere."""

from typing import get_args

import pytest

from flows import stages
from flows.deployment_specs import DeploymentSpec, WorkPoolSpec, packaged_folder, read_project
from pvar.placement import PlacementConfig, StageName
from tasks.graph import STAGES


def test_the_configuration_and_the_command_line_know_every_stage() -> None:
    assert get_args(StageName) == tuple(STAGES)
    assert tuple(PlacementConfig.model_fields) == tuple(STAGES)


def test_every_stage_has_a_flow_of_its_name_and_description() -> None:
    for name, stage in STAGES.items():
        flow = getattr(stages, name)
        assert (flow.name, flow.description) == (stage.name, stage.description)
        assert flow is stages.stage_flow(name)
    with pytest.raises(AttributeError, match="there is no stage 'polish'; there are ingest"):
        stages.polish  # noqa: B018


@pytest.mark.parametrize("pool", ["process", "docker", "kubernetes"])
def test_every_stage_is_deployed_on_every_pool(pool: str) -> None:
    project = read_project(packaged_folder())
    deployed = [each.flow for each in project.stage_deployments() if each.name == pool]
    assert deployed == list(STAGES)


def test_a_stage_may_be_deployed_in_a_way_of_its_own() -> None:
    project = read_project(packaged_folder())
    pool = WorkPoolSpec(name="pvar-docker", job_variables={"image": "mine:gpu"})
    own = DeploymentSpec(name="docker", entrypoint="flows.stages.sample", work_pool=pool)
    changed = project.model_copy(update={"deployments": [*project.deployments, own]})
    before, after = project.stage_deployments(), changed.stage_deployments()
    assert len(after) == len(before)
    assert [each for each in after if each not in before] == [own]

    tagged = own.model_copy(update={"work_pool": None, "tags": ["mine"]})
    changed = project.model_copy(update={"deployments": [tagged]})
    (sample,) = (each for each in changed.stage_deployments() if each.tags == ["mine"])
    assert sample.work_pool is not None
    assert sample.work_pool.job_variables == {"image": "pvar:sample"}
