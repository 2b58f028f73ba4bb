"""One Prefect flow per stage, so that each stage can run alone and has its own name in Prefect.

    from flows.stages import sample
    sample(config)                               the stage's own node
    sample(config, node="answers-challenger")    another node of the same stage

A stage flow takes the whole configuration, because the digest of its artifact depends on all
earlier stages. A node whose inputs are incomplete waits for them, and the log says for which. If no
node can run, the error names the stage to run first.
"""

from functools import cache

from prefect import Flow, flow

from flows.execution import execute
from flows.pinning import pin
from flows.placed_checks import StageCheck, check_worker
from flows.run_names import describe_alone, stage_run_name, tags_of
from flows.run_progress import progress_shown
from flows.stage_nodes import StageResult, run_nodes_of
from flows.waiting_state import shown_as_waiting
from flows.wiring import connect
from pvar.config import PipelineConfig
from tasks.engine.node import Node
from tasks.engine.stage_outcome import StageOutcome
from tasks.graph import STAGES


@cache
def stage_flow(stage: str) -> Flow[..., list[StageResult]]:
    """The flow of a stage. It is made when it is first needed: each takes a tenth of a second, for
    the schema of its parameters, and a process needs few of them."""

    @flow(
        name=stage,
        description=STAGES[stage].description,
        flow_run_name=stage_run_name,
        persist_result=False,
    )
    def run(
        config: PipelineConfig,
        node: str | None = None,
        parent_run: str | None = None,
        check: StageCheck | None = None,
    ) -> list[StageResult]:
        """Complete the stage's artifacts.

        Args:
            config: The whole configuration, which determines the stage's artifacts.
            node: One node of the stage, as listed by `pvar show`. Empty means all of its nodes.
            parent_run: Parent MLflow run of the stage's run.
            check: Make nothing, and check whether nodes could run here. Pipelines set it.
        """
        wiring = connect()
        pinned = pin(config, wiring)
        if check is not None:
            check_worker(pinned, check, wiring)
            return []
        describe_alone(tags_of(pinned, None))

        def make(node: Node) -> StageOutcome:
            with progress_shown():
                return execute(pinned, node.name, wiring, parent_run=parent_run)

        results = run_nodes_of(pinned, stage, node, wiring, make, announced=parent_run is not None)
        waiting = next((result.waiting for result in results if result.waiting), None)
        return results if waiting is None else shown_as_waiting(results, waiting)

    return run


def __getattr__(name: str) -> Flow[..., list[StageResult]]:
    """A stage's flow by attribute: `flows.stages.sample` is the entry point of its deployments."""
    if name not in STAGES:
        raise AttributeError(f"there is no stage {name!r}; there are {', '.join(STAGES)}")
    return stage_flow(name)
