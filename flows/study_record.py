"""The record of a study: `comparisons/{run}.json` in the store.

It is written before the work starts, and after each training. It names all artifacts of all
trainings, so that `pvar gc` keeps them, and has the pinned pipelines, so that a process that makes
one training needs nothing else.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.ports import Store
from pvar.study_config import HELD_OUT, StudyConfig, cells, control_of, with_seed
from tasks.benchmark_nodes import score_name
from tasks.engine.node import Node
from tasks.graph import plan_nodes
from tasks.held_out_nodes import HELD_OUT_PAIR

FOLDER = "comparisons"


class ComparedNode(BaseModel):
    """A node of one training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: str
    seed: int
    name: str
    artifact: str
    """`stage/digest`."""


class StudyTraining(BaseModel):
    """One training of the study, and how it ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: str
    """Arm, or `ARM@VALUE` in a sweep."""
    seed: int
    state: Literal["pending", "done", "failed"] = "pending"
    seconds: float | None = None
    """Wall time of its process: little where its artifacts were there."""
    error: str | None = None

    @property
    def label(self) -> str:
        """Name in messages and file names."""
        return f"{self.cell}/{self.seed}"


class StudyRecord(BaseModel):
    """A study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    started_at: datetime
    config: StudyConfig
    """The study with its references pinned."""
    pipelines: dict[str, PipelineConfig]
    """The pinned pipeline of each cell, without a training's seed."""
    mlflow_run: str
    trainings: tuple[StudyTraining, ...]
    nodes: tuple[ComparedNode, ...]

    def pipeline_of(self, training: StudyTraining) -> PipelineConfig:
        """The pinned pipeline of one training."""
        return with_seed(self.config, self.pipelines[training.cell], training.seed)

    def with_training(self, training: StudyTraining) -> "StudyRecord":
        """The record with the state of that training replaced."""
        trainings = tuple(
            training if each.label == training.label else each for each in self.trainings
        )
        return self.model_copy(update={"trainings": trainings})

    def nodes_of(self, training: StudyTraining) -> dict[str, Node]:
        """The nodes of one training, by name, in execution order."""
        return compared_nodes(self.pipeline_of(training), self.config.endpoints)

    def shared_nodes(self) -> Iterator[tuple[Node, PipelineConfig]]:
        """The nodes whose artifacts several trainings need, in an order in which they can run."""
        uses = Counter(node.artifact for node in self.nodes)
        found: set[str] = set()
        for training in self.trainings:
            config = self.pipeline_of(training)
            for node in self.nodes_of(training).values():
                if uses[node.keys.root] > 1 and node.keys.root not in found:
                    found.add(node.keys.root)
                    yield node, config


def compared_nodes(config: PipelineConfig, endpoints: Sequence[str] = ()) -> dict[str, Node]:
    """The nodes that a training's results need: no model is registered.

    These are `evaluate`, `divergence` where it is configured, the benchmarks among the `endpoints`,
    and everything that they are made from.
    """
    nodes = plan_nodes(config)
    results = [HELD_OUT, "divergence", *(score_name(name) for name in endpoints)]
    needed = {nodes[name].keys for name in results if name in nodes}
    for node in reversed(nodes.values()):  # inputs come before what is made from them
        if node.keys in needed:
            needed |= set(node.inputs.values())
    return {name: node for name, node in nodes.items() if node.keys in needed}


def refuse_equal_trainings(
    pipelines: Mapping[str, PipelineConfig], endpoints: Sequence[str]
) -> None:
    """Raise ConfigError if two cells, however they are written, are the same trainings."""
    of_artifacts: dict[tuple[str, ...], str] = {}
    for cell, pipeline in pipelines.items():
        made = tuple(node.keys.root for node in compared_nodes(pipeline, endpoints).values())
        if made in of_artifacts:
            raise ConfigError(
                f"the arms {of_artifacts[made]} and {cell} are the same trainings: their settings "
                "differ in nothing that training and results depend on; leave one of them out"
            )
        of_artifacts[made] = cell


def refuse_other_held_out_pairs(
    study: StudyConfig, pipelines: Mapping[str, PipelineConfig]
) -> None:
    """Raise ConfigError if an arm and its control would measure margins on different pairs."""
    for cell in cells(study):
        control = control_of(study, cell)
        if control is None or not pipelines[cell.name].evaluate.margins:
            continue
        own, other = (plan_nodes(pipelines[name]) for name in (cell.name, control))
        if own[HELD_OUT_PAIR].keys != other[HELD_OUT_PAIR].keys:
            raise ConfigError(
                f"evaluate.margins is true, but the held-out pairs of arm {cell.name} are not "
                f"those of its control {control}, because the arm changes how responses are "
                "sampled or which rewards label them; give both the same pair.models, sample and "
                "reward settings, or set evaluate.margins to false"
            )


def save_study(store: Store, record: StudyRecord) -> None:
    """Write the record in its current state."""
    store.write(f"{FOLDER}/{record.run}.json", record.model_dump_json(indent=1).encode() + b"\n")


def load_study_record(store: Store, run: str) -> StudyRecord:
    """The record of a study. Raises NotFoundError if there is none of that name."""
    return StudyRecord.model_validate_json(store.read(f"{FOLDER}/{run}.json"))
