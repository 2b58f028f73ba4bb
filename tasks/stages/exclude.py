"""Stage exclude: which training prompts stage select leaves out, because they are an exam's.

An exam is an input `exam-NAME`, an artifact with a table of prompts; all of its prompts count. The
rules are those of `pvar/exclusion.py`. Responses and scores do not depend on this artifact, so that
a further exam changes the selection without sampling or scoring again.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.exclusion import Exclusion, find_exclusions
from pvar.records import Prompt
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.ingest import PROMPTS, training_prompts

EXCLUDED = "excluded.parquet"
EXAM = "exam-"
"""Prefix of the inputs that are exams; the name of the exam follows."""
FIGURE = "excluded_"
"""Prefix of an exam's figure in the summary."""


class ExcludeSpec(BaseModel):
    """What decides which prompts are excluded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ngram_words: int
    """Length of a shared n-gram, in words."""
    min_similarity: float
    """Jaccard similarity of near-duplicates, in word 3-grams."""


def excluded_prompts(exclusions: Artifact) -> frozenset[str]:
    """Ids of the prompts that any exam excludes."""
    return frozenset(row.prompt_id for row in exclusions.rows(EXCLUDED, Exclusion))


def excluded_by_exam(exclusions: Artifact) -> dict[str, int]:
    """Name of each exam → how many training prompts it excludes, from the summary."""
    return {
        name.removeprefix(FIGURE): value
        for name, value in exclusions.manifest.summary.items()
        if name.startswith(FIGURE) and isinstance(value, int)
    }


def _exams(job: Job[ExcludeSpec]) -> dict[str, Artifact]:
    """Name of each exam → its artifact, in the order of the names."""
    return {
        name.removeprefix(EXAM): artifact
        for name, artifact in sorted(job.inputs.items())
        if name.startswith(EXAM)
    }


@contextmanager
def _open_worker(job: Job[ExcludeSpec]) -> Iterator[Work]:
    def exclude(_: ShardSpec, folder: Path) -> RowCounts:
        prompts = training_prompts(job.inputs["prompts"])
        exams = {name: exam.rows(PROMPTS, Prompt) for name, exam in _exams(job).items()}
        job.progress.begin(total=len(prompts), unit="prompts")
        exclusions = find_exclusions(
            _counted(job, prompts),
            exams,
            ngram_words=job.spec.ngram_words,
            min_similarity=job.spec.min_similarity,
        )
        write_table(folder / EXCLUDED, exclusions, Exclusion)
        rules = {row.prompt_id: row.rule for row in reversed(exclusions)}
        rejected = Counter(rules.values())
        return RowCounts(
            rows_in=len(prompts),
            rows_out=len(prompts) - len(rules),
            rejected=dict(sorted(rejected.items())),
        )

    yield exclude


def _counted(job: Job[ExcludeSpec], prompts: list[Prompt]) -> Iterator[Prompt]:
    for prompt in prompts:
        yield prompt
        job.progress.advance()


def _summarise(job: Job[ExcludeSpec], artifact: Artifact) -> Summary:
    exclusions = artifact.rows(EXCLUDED, Exclusion)
    by_exam = Counter(row.exam for row in exclusions)
    return {
        "num_excluded": len({row.prompt_id for row in exclusions}),
        **{f"{FIGURE}{name}": by_exam[name] for name in _exams(job)},
    }


EXCLUDE = Stage(
    name="exclude",
    description="Find training prompts that are prompts of an exam.",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
