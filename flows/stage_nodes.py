"""Run the nodes of one stage, without Prefect: those whose inputs are complete.

A stage can have nodes at several places of the plan. In an empty store `sample` can answer the
prompts with the first model, but not with the one that is trained from these answers. So what can
be made is made, and of the others it is said what they wait for, and what to run next.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from flows.announcement import announce_stage
from flows.execution import execute
from flows.placed_stages import is_complete
from flows.wiring import Wiring
from pvar.artifacts import Manifest, Summary, WaitingRecord
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, IncompleteError
from tasks.engine.artifact import ArtifactKeys, open_artifact, read_document
from tasks.engine.node import Node
from tasks.engine.stage_outcome import StageOutcome, StageState
from tasks.graph import plan_nodes

logger = logging.getLogger(__name__)


class StageResult(BaseModel):
    """What a stage made. The artifact itself is in the store."""

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


class BlockedNode(NamedTuple):
    """A node that cannot run yet."""

    node: str
    inputs: tuple[str, ...]
    """Nodes of its inputs that are incomplete."""
    stages: tuple[str, ...]
    """Stages to run before, in order. The first of them can run now."""

    @property
    def sentence(self) -> str:
        """What it waits for."""
        first, *later = self.stages
        then = f", then {', '.join(later)}" if later else ""
        return f"{self.node} waits for {', '.join(self.inputs)}: run stage {first}{then}"


def run_nodes_of(
    config: PipelineConfig,
    stage: str,
    node: str | None,
    wiring: Wiring,
    make: Callable[[Node], StageOutcome],
    *,
    announced: bool = False,
) -> list[StageResult]:
    """Call `make` for the nodes of a stage, or the given one, whose inputs are complete.

    `announced`: the caller has said which node begins.

    Raises ConfigError if the pinned configuration has no such node, and IncompleteError if none of
    its nodes can run.
    """
    nodes = plan_nodes(config)
    chosen = chosen_nodes(nodes, stage, node)
    results, blocked = [], []
    for number, each in enumerate(chosen, start=1):
        if not announced:
            at = f", node {number} of {len(chosen)}" if len(chosen) > 1 else ""
            announce_stage(f"stage {stage}{at}: {each.name}")
        if found := _blocked(each, nodes, wiring):
            logger.info("%s", found.sentence)
            blocked.append(found)
        else:
            results.append(_result(each, make(each)))
    if not results:
        raise IncompleteError("; ".join(each.sentence for each in blocked))
    return results


def make_or_reuse(node: Node, config: PipelineConfig, wiring: Wiring) -> StageOutcome:
    """Complete a node's artifact. If it is complete, nothing is recorded in MLflow."""
    if not is_complete(node, wiring):
        return execute(config, node.name, wiring)
    keys = node.keys
    logger.info("%s: reused", keys.root)
    artifact = open_artifact(wiring.store, keys.stage, keys.digest, wiring.settings.home)
    return StageOutcome(artifact, shards_made=0, seconds=0.0)


def blocked_nodes(
    config: PipelineConfig, stage: str, node: str | None, wiring: Wiring
) -> list[BlockedNode]:
    """What the nodes of a stage, or the given one, wait for that cannot run yet.

    Raises ConfigError if the pinned configuration has no such node.
    """
    nodes = plan_nodes(config)
    found = (_blocked(each, nodes, wiring) for each in chosen_nodes(nodes, stage, node))
    return [each for each in found if each is not None]


def unblocked_nodes(
    config: PipelineConfig, stage: str, node: str | None, wiring: Wiring
) -> list[Node]:
    """The others: those that can run, or are complete."""
    nodes = plan_nodes(config)
    chosen = chosen_nodes(nodes, stage, node)
    return [each for each in chosen if _blocked(each, nodes, wiring) is None]


def chosen_nodes(nodes: Mapping[str, Node], stage: str, name: str | None) -> list[Node]:
    """The nodes of a stage, or the one of that name. Raises ConfigError if there is none."""
    of_stage = {each.name: each for each in nodes.values() if each.stage.name == stage}
    if name is None:
        if not of_stage:
            others = ", ".join(dict.fromkeys(each.stage.name for each in nodes.values()))
            raise ConfigError(
                f"this configuration has no node of stage {stage}; it has nodes of {others}"
            )
        return list(of_stage.values())
    if name not in of_stage:
        if name in nodes:
            is_of = f"{name} is a node of stage {nodes[name].stage.name}: give that stage"
        elif of_stage:
            is_of = f"it has {', '.join(of_stage)}"
        else:
            is_of = f"this configuration has none of that stage, but {', '.join(nodes)}"
        raise ConfigError(f"stage {stage} has no node {name!r}; {is_of}")
    return [of_stage[name]]


def needed_nodes(nodes: Mapping[str, Node], name: str) -> list[Node]:
    """The node of that name and all that it is made from, in order; the node is the last.

    Raises ConfigError if there is none.
    """
    if name not in nodes:
        raise ConfigError(f"there is no node {name!r}; this configuration has {', '.join(nodes)}")
    wanted = {nodes[name].keys.root}
    found: list[Node] = []
    for node in reversed(list(nodes.values())):
        if node.name == name or (found and node.keys.root in wanted):
            found.append(node)
            wanted |= {keys.root for keys in node.inputs.values()}
    return found[::-1]


def _blocked(node: Node, nodes: Mapping[str, Node], wiring: Wiring) -> BlockedNode | None:
    """What the node waits for; None if its inputs are complete."""
    makers: dict[ArtifactKeys, Node] = {}
    for each in nodes.values():
        makers.setdefault(each.keys, each)
    missing: dict[ArtifactKeys, None] = {}
    looked: set[ArtifactKeys] = set()

    def look(inputs: Collection[ArtifactKeys]) -> list[ArtifactKeys]:
        """Those that are incomplete; notes them after what they need."""
        for keys in inputs:
            if keys not in looked:
                looked.add(keys)
                if read_document(wiring.store, keys.manifest, Manifest) is None:
                    if keys in makers:  # else a model of another configuration
                        look(makers[keys].inputs.values())
                    missing[keys] = None
        return [keys for keys in inputs if keys in missing]

    inputs = look(node.inputs.values())
    if not inputs:
        return None
    names = (makers[keys].name if keys in makers else keys.root for keys in inputs)
    stages = dict.fromkeys(keys.stage for keys in missing)
    return BlockedNode(node.name, tuple(dict.fromkeys(names)), tuple(stages))


def _result(node: Node, outcome: StageOutcome) -> StageResult:
    return StageResult(
        node=node.name,
        artifact=node.keys.root,
        state=outcome.state,
        seconds=outcome.seconds,
        summary={} if outcome.waiting else outcome.artifact.manifest.summary,
        waiting=outcome.waiting,
    )
