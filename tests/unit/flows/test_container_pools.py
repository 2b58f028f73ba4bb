"""What `pvar deploy` registers for pools of containers: where stages go and what they are given."""

import json
from pathlib import Path

import pytest
import yaml

from flows.deployment_specs import PoolType, packaged_folder, read_project
from flows.deployments import placed_for
from infra.judges.access import JudgeAccess, SamplerAccess, ServerAccess
from pvar.placement import Placement, PlacementConfig
from pvar.retrain_decision import RetrainConfig

ROOT = Path(__file__).parents[3]
ELSEWHERE = Placement(pool="process", workers=3)


def preset(**placement: Placement) -> RetrainConfig:
    tree = {"pipeline": {"runtime": {"placement": placement, "sampled_responses_per_shard": 7}}}
    return RetrainConfig.model_validate(tree)


@pytest.mark.parametrize("pool", ["docker", "kubernetes"])
def test_stages_left_inline_go_to_the_container_pool(pool: PoolType) -> None:
    """Inline they would run in the pipeline's image, which cannot load a model."""
    runtime = placed_for(pool, preset(sample=ELSEWHERE)).pipeline.runtime
    stages = PlacementConfig.model_fields.keys()
    assert {stage: runtime.placement.of(stage) for stage in stages} == {
        **dict.fromkeys(stages, Placement(pool=pool)),
        "sample": ELSEWHERE,
    }
    assert runtime.sampled_responses_per_shard == 7


def test_a_process_pool_changes_nothing() -> None:
    config = preset(sample=ELSEWHERE)
    assert placed_for("process", config) == config


@pytest.mark.parametrize("pool", ["docker", "kubernetes"])
def test_stages_that_may_load_a_model_have_an_image_that_can(pool: PoolType) -> None:
    """Evaluate and audit do with a judge that is a reward model."""
    images = {
        spec.flow: spec.work_pool.job_variables["image"]
        for spec in read_project(packaged_folder()).stage_deployments()
        if spec.name == pool
    }
    assert images == {
        **dict.fromkeys(("ingest", "exclude", "select", "annotate", "pair"), "pvar:cpu"),
        **dict.fromkeys(("promote", "questions", "outputs", "benchmark"), "pvar:cpu"),
        **dict.fromkeys(("score", "train", "divergence", "evaluate"), "pvar:train"),
        **dict.fromkeys(("likelihood", "harness", "judge", "audit"), "pvar:train"),
        **dict.fromkeys(("reward", "adopt"), "pvar:train"),
        "sample": "pvar:sample",
    }


@pytest.mark.parametrize("access", [JudgeAccess, SamplerAccess])
def test_a_stage_in_a_container_is_told_how_to_reach_servers(access: type[ServerAccess]) -> None:
    """By the docker worker, from its own environment, which in the stack is that of docker/.env."""
    template = json.loads((packaged_folder() / "work_pools/docker.json").read_text())
    stack = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]["worker"]
    example = (ROOT / "docker/.env.example").read_text()
    for field in access.model_fields:
        name = f"{access.model_config['env_prefix']}{field}".upper()
        given = template["variables"]["properties"]["env"]["default"]
        assert given[name] == f"{{{{ ${name} }}}}"
        assert stack["environment"][name] == f"${{{name}:-}}"
        assert f"#{name}=\n" in example


def test_a_container_has_shared_memory_for_vllm() -> None:
    """Of Docker's own 64 MiB vLLM says: 160 MiB required."""
    template = json.loads((packaged_folder() / "work_pools/docker.json").read_text())
    options = template["variables"]["properties"]["container_create_kwargs"]["default"]
    number, unit = options["shm_size"][:-1], options["shm_size"][-1]
    assert int(number) * {"m": 2**20, "g": 2**30}[unit] > 160 * 2**20
