"""The node of an exam with sources of its own, and which node has the exam's prompts."""

from collections.abc import Container

from pvar.config import PipelineConfig
from tasks.engine.node import Node
from tasks.stages.exam_questions import QUESTIONS, ExamQuestions, QuestionsSpec
from tasks.stages.ingest import INGEST

EXAM_NODE = "exam"
"""Name of the node with the prompts of `evaluate.prompts`."""

FIRST_NODE = "evaluate-first"
"""Name of the node that compares the trained model with the first one."""


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
    spec = QuestionsSpec(benchmark=exam)
    return [Node(EXAM_NODE, QUESTIONS, spec, {})]
