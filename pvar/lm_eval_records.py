"""Results of lm-evaluation-harness as rows: one per question and metric, and its own aggregates.

The name is what the configuration lists; a group or a tag has several tasks. A task can have
several filters, which extract an answer from the model's text in different ways; a metric is
computed for each of them.
"""

from typing import NamedTuple


class LmEvalSample(NamedTuple):
    """One metric of one question."""

    name: str
    """Name in the configuration."""
    task: str
    doc_id: int
    """Position of the question in the task, from 0."""
    metric: str
    filter: str
    """Filter of the model's text; `none` if the task has no filters."""
    value: float | None
    """None if the metric is undefined for this answer."""
    question_hash: str
    """Hash of the question and its target, by which two models' rows are the same question."""


class LmEvalAggregate(NamedTuple):
    """One metric of a task or a group, as the harness aggregates it."""

    name: str
    """Name in the configuration."""
    task: str
    """The task, or the group."""
    is_group: bool
    metric: str
    filter: str
    value: float | None
    stderr: float | None
    """Standard error; None if the harness gives none."""
    higher_is_better: bool | None
    """None if the task does not say."""
    num_questions: int
    """Questions that were scored."""
    num_fewshot: int | None
    """Examples in each prompt; None for groups of several numbers."""
    task_version: str
    """Version of the task's definition."""
    harness_version: str
    """Version of lm-evaluation-harness."""


class HarnessResult(NamedTuple):
    """The results of one configured name."""

    num_questions: int
    samples: tuple[LmEvalSample, ...]
    aggregates: tuple[LmEvalAggregate, ...]
