"""The nodes of exams with sources of their own, and what no model is trained on because of any.

Which node has the prompts on which the models are compared is decided here, too.
"""

from collections.abc import Container, Mapping, Sequence

from pvar.config import EXAM_NAME, RESERVE_NAME, PipelineConfig
from pvar.exclusion import MIN_SIMILARITY
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.node import Node
from tasks.stages.exam_questions import QUESTIONS, ExamQuestions, QuestionsSpec
from tasks.stages.exclude import EXAM, EXCLUDE, ExcludeSpec
from tasks.stages.ingest import INGEST

EXAM_NODE = "exam"
"""Name of the node with the prompts of `evaluate.prompts`."""

FIRST_NODE = "evaluate-first"
"""Name of the node that compares the trained model with the first one."""

DIVERGENCE_FIRST_NODE = "divergence-first"
"""Name of the node that estimates the trained model's divergence from the first one."""


RESERVE_NODE = "reserve"
"""Name of the node with the prompts of `evaluate.reserve_prompts`."""

RESERVE_EVALUATE_NODE = "reserve-evaluate"
"""Name of the node that compares the audited model with the first one on the reserve exam."""


def exam_node(names: Container[str]) -> str:
    """Which of these nodes has the prompts on which the models are compared."""
    return EXAM_NODE if EXAM_NODE in names else INGEST.name


def exam_nodes(config: PipelineConfig) -> list[Node]:
    """The node of `evaluate.prompts`; none if the exam is what `ingest` holds out."""
    return _questions(EXAM_NODE, config.evaluate.prompts, config)


def reserve_nodes(config: PipelineConfig) -> list[Node]:
    """The node of `evaluate.reserve_prompts`; none if there is no reserve exam."""
    return _questions(RESERVE_NODE, config.evaluate.reserve_prompts, config)


def _questions(name: str, prompts: tuple[str, ...], config: PipelineConfig) -> list[Node]:
    if not prompts:
        return []
    exam = ExamQuestions(kind="exam", prompts=prompts, source_field=config.ingest.source_field)
    spec = QuestionsSpec(benchmark=exam, withdrawn=config.evaluate.withdrawn)
    return [Node(name, QUESTIONS, spec, {})]


def keys_of_exams(
    questions: Mapping[str, Node], own_exam: Sequence[Node], reserve: Sequence[Node]
) -> dict[str, ArtifactKeys]:
    """Name of each exam on which nothing is trained → the artifact of its prompts.

    `questions` are those of benchmarks, `own_exam` and `reserve` are the nodes of
    `evaluate.prompts` and `evaluate.reserve_prompts`, if any.
    """
    keys = {name: node.keys for name, node in questions.items()}
    files = {EXAM_NAME: own_exam, RESERVE_NAME: reserve}
    return keys | {name: nodes[0].keys for name, nodes in files.items() if nodes}


def exclude_node(
    config: PipelineConfig,
    ingest: Node,
    exams: Mapping[str, ArtifactKeys],
    name: str = EXCLUDE.name,
) -> Node | None:
    """The training prompts that are an exam's, by the exams' names; None without exams."""
    if not exams:
        return None
    spec = ExcludeSpec(
        ngram_words=config.ingest.decontaminate_ngram_words, min_similarity=MIN_SIMILARITY
    )
    inputs = {f"{EXAM}{exam}": keys for exam, keys in exams.items()}
    return Node(name, EXCLUDE, spec, {"prompts": ingest.keys, **inputs})
