"""One Prefect flow per stage, so that each stage can run alone and has its own name in Prefect.

    from flows.stages import sample
    sample(config)                               the stage's own node
    sample(config, node="answers-challenger")    another node of the same stage

A stage flow takes the whole configuration, because the digest of its artifact depends on all
earlier stages. If an input is incomplete, the error message names the stage to run first.
"""

from prefect import Flow, flow
from pydantic import BaseModel, ConfigDict

from flows.execution import execute
from flows.pinning import pin
from flows.run_names import describe_alone, stage_run_name, tags_of
from flows.run_progress import progress_shown
from flows.waiting_state import shown_as_waiting
from flows.wiring import connect
from pvar.artifacts import Summary, WaitingRecord
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from tasks.engine.node import Node
from tasks.engine.stage_outcome import StageOutcome, StageState
from tasks.graph import STAGES, plan_nodes


class StageResult(BaseModel):
    """What a stage flow returns about an artifact. The artifact itself is in the store."""

    model_config = ConfigDict(frozen=True)

    node: str
    artifact: str
    """`stage/digest`."""
    state: StageState
    seconds: float
    summary: Summary
    """Empty while the stage waits."""
    waiting: WaitingRecord | None = None
    """What the stage waits for."""


def nodes_of(config: PipelineConfig, stage: str) -> list[str]:
    """Names of the nodes of a stage in a pinned configuration."""
    return [name for name, node in plan_nodes(config).items() if node.stage.name == stage]


def _stage_flow(stage: str) -> Flow[..., list[StageResult]]:
    @flow(
        name=stage,
        description=STAGES[stage].description,
        flow_run_name=stage_run_name,
        persist_result=False,
    )
    def run(
        config: PipelineConfig, node: str | None = None, parent_run: str | None = None
    ) -> list[StageResult]:
        """Complete the stage's artifacts.

        Args:
            config: The whole configuration, which determines the stage's artifacts.
            node: One node of the stage, as listed by `pvar show`. Empty means all of its nodes.
            parent_run: Parent MLflow run of the stage's run.
        """
        wiring = connect()
        pinned = pin(config, wiring)
        describe_alone(tags_of(pinned, None))
        nodes = nodes_of(pinned, stage)
        if node is not None and node not in nodes:
            raise ConfigError(f"stage {stage} has no node {node!r}; it has {', '.join(nodes)}")
        results = []
        for name in [node] if node is not None else nodes:
            with progress_shown():
                outcome = execute(pinned, name, wiring, parent_run=parent_run)
            results.append(_result(plan_nodes(pinned)[name], outcome))
        waiting = next((result.waiting for result in results if result.waiting), None)
        return results if waiting is None else shown_as_waiting(results, waiting)

    return run


def _result(node: Node, outcome: StageOutcome) -> StageResult:
    return StageResult(
        node=node.name,
        artifact=node.keys.root,
        state=outcome.state,
        seconds=outcome.seconds,
        summary={} if outcome.waiting else outcome.artifact.manifest.summary,
        waiting=outcome.waiting,
    )


STAGE_FLOWS: dict[str, Flow[..., list[StageResult]]] = {name: _stage_flow(name) for name in STAGES}


def __getattr__(name: str) -> Flow[..., list[StageResult]]:
    """A stage's flow by attribute: `flows.stages.sample` is the entry point of its deployments."""
    if name not in STAGE_FLOWS:
        raise AttributeError(f"there is no stage {name!r}; there are {', '.join(STAGE_FLOWS)}")
    return STAGE_FLOWS[name]
