"""What the scoring of a judged benchmark reads: the questions, and each model's judged answers."""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import Summary
from pvar.evaluation.benchmark_questions import BenchmarkQuestion
from pvar.evaluation.benchmark_scores import BenchmarkScore, QuestionResult
from pvar.records import Prompt, Response
from tasks.engine.artifact import Artifact
from tasks.engine.tables import JudgedShowing, by_prompt
from tasks.stages.exam_questions import BASELINE
from tasks.stages.ingest import PROMPTS
from tasks.stages.judge import answer_texts
from tasks.stages.judgments import SHOWINGS
from tasks.stages.outputs import OUTPUTS, read_about
from tasks.stages.sample import RESPONSES

JUDGMENTS_INPUT = "judgments-"
"""Prefix of the inputs that are models' judgments; the rest is the model's role."""


class ScoredModel(BaseModel):
    """A model that takes the benchmark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    """Suffix of its inputs: `answers-ROLE`, `judgments-ROLE`."""
    name: str
    """Name in results and exported files, unless its answers name their model."""


class JudgedModel(NamedTuple):
    """A model's answers and their judgments, by prompt id."""

    role: str
    name: str
    answers: Mapping[str, str]
    num_tokens: Mapping[str, int]
    """Published `token_len` of each answer; empty if unknown."""
    showings: Mapping[str, list[JudgedShowing]]


class JudgedInputs(NamedTuple):
    """The inputs of a judged benchmark's scores."""

    questions: list[BenchmarkQuestion]
    texts: Mapping[str, str]
    """Text of each question, by prompt id."""
    models: list[JudgedModel]


class JudgedScores(NamedTuple):
    """What the scoring of a judged benchmark makes."""

    scores: list[BenchmarkScore]
    """Of each model: over all questions first, then by category."""
    by_question: list[QuestionResult]
    figures: Summary | None = None
    """Further figures of the summary."""


def read_judged(inputs: Mapping[str, Artifact], models: tuple[ScoredModel, ...]) -> JudgedInputs:
    """Read the inputs `questions`, `answers-ROLE` and `judgments-ROLE` of these models."""
    questions = inputs["questions"]
    prompts = questions.rows(PROMPTS, Prompt)
    return JudgedInputs(
        questions.rows(BASELINE, BenchmarkQuestion),
        {prompt.prompt_id: prompt.messages[0].content for prompt in prompts},
        [_read_model(inputs, model) for model in models],
    )


def _read_model(inputs: Mapping[str, Artifact], model: ScoredModel) -> JudgedModel:
    answers = inputs[f"answers-{model.role}"]
    responses = answers.rows(RESPONSES, Response)
    about = read_about(answers) if answers.keys.stage == OUTPUTS.name else None
    has_token_counts = about is not None and about.has_token_counts
    showings = inputs[f"{JUDGMENTS_INPUT}{model.role}"].rows(SHOWINGS, JudgedShowing)
    return JudgedModel(
        model.role,
        about.generator if about is not None else model.name,
        answer_texts(responses),
        {each.prompt_id: each.num_tokens for each in responses} if has_token_counts else {},
        by_prompt(showings),
    )
