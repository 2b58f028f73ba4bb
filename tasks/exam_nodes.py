"""The nodes of exams: one with sources of its own, and what no model is trained on because of any.

Which node has the prompts on which the models are compared is decided here, too.
"""

from collections.abc import Container, Mapping, Sequence

from pvar.config import EXAM_NAME, PipelineConfig
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


def exam_node(names: Container[str]) -> str:
    """Which of these nodes has the prompts on which the models are compared."""
    return EXAM_NODE if EXAM_NODE in names else INGEST.name


def exam_nodes(config: PipelineConfig) -> list[Node]:
    """The node of `evaluate.prompts`; none if the exam is what `ingest` holds out."""
    if not config.evaluate.prompts:
        return []
    exam = ExamQuestions(
        kind="exam", prompts=config.evaluate.prompts, source_field=config.ingest.source_field
    )
    spec = QuestionsSpec(benchmark=exam, withdrawn=config.evaluate.withdrawn)
    return [Node(EXAM_NODE, QUESTIONS, spec, {})]


def keys_of_exams(
    questions: Mapping[str, Node], own_exam: Sequence[Node]
) -> dict[str, ArtifactKeys]:
    """Name of each exam on which nothing is trained → the artifact of its prompts.

    `questions` are those of benchmarks, `own_exam` is the node of `evaluate.prompts`, if any.
    """
    keys = {name: node.keys for name, node in questions.items()}
    return keys | ({EXAM_NAME: own_exam[0].keys} if own_exam else {})


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
