"""What `pvar deploy` makes of a configuration where the pipeline itself runs in a container."""

import pytest

from flows.deployments import PoolType, placed_for
from pvar.placement import Placement, PlacementConfig
from pvar.retrain import RetrainConfig

ELSEWHERE = Placement(pool="process", workers=3)


def preset(**placement: Placement) -> RetrainConfig:
    tree = {"pipeline": {"runtime": {"placement": placement, "prompts_per_shard": 7}}}
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
    assert runtime.prompts_per_shard == 7


def test_a_process_pool_changes_nothing() -> None:
    config = preset(sample=ELSEWHERE)
    assert placed_for("process", config) == config
