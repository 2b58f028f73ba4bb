"""Stage audit: what the models say about labelled pairs, before anything is trained on them.

Rewards and log-probabilities are those of stages score and likelihood. The judge is asked here,
about at most `max_judged` pairs, chosen by a hash and shared evenly between the sources: each pair
costs calls, and the share of a small source would say nothing. Verdicts that are missing, because
the budget is spent, stay missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.digest import digest
from pvar.evaluation.label_audit import (
    AskedLabel,
    ModelKind,
    count_agreement,
    total_agreement,
)
from pvar.evaluation.preference_accuracy import LabelLogps
from pvar.judge_config import JudgeConfig
from pvar.judging import JudgeBudget
from pvar.number_format import NumberFormat
from pvar.records import Comparison, Score
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.audited_labels import LabelledPair, read_labelled_pairs
from tasks.stages.judge_pairs import judge_pairs
from tasks.stages.judgments import cache_of, judge_format, judge_in_format
from tasks.stages.likelihood import LABEL_LOGPS
from tasks.stages.score import SCORES, model_folders

ASKED = "asked.parquet"
"""The table of `AskedLabel`: one row per model and pair that it was asked about."""

THE_CHAMPION = "the champion"
"""With a space, as no reward model's name has."""

SCORES_INPUT = "scores-"
CHAMPION_INPUT = "likelihood-champion"
FIRST_INPUT = "likelihood-first"


class AskedModel(BaseModel):
    """A model whose results are an input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    settings: str
    """Digest of what determines its answers."""


class AskedJudge(BaseModel):
    """The judge, and about how many pairs it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    settings: str
    judge: JudgeConfig
    orders: Literal["both", "seeded"]
    seed: int
    max_judged: int


class AuditSpec(BaseModel):
    """The settings that determine who is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reward_models: tuple[AskedModel, ...]
    champion: AskedModel | None
    """By its implicit reward relative to the first model; None if it is the first model."""
    judge: AskedJudge | None


@contextmanager
def _open_worker(job: Job[AuditSpec]) -> Iterator[Work]:
    def ask(_: ShardSpec, folder: Path) -> RowCounts:
        pairs = read_labelled_pairs(job.inputs["labels"])
        rows = [
            row
            for model in job.spec.reward_models
            for row in _rows(pairs, "reward_model", model, _reward_margins(job, model.name, pairs))
        ]
        if job.spec.champion is not None:
            rows += _rows(pairs, "champion", job.spec.champion, _implicit_margins(job))
        if job.spec.judge is not None:
            judged = judged_pairs(pairs, job.spec.judge.max_judged)
            asked = AskedModel(name=job.spec.judge.name, settings=job.spec.judge.settings)
            rows += _rows(judged, "judge", asked, _judged_margins(job, job.spec.judge, judged))
        write_table(folder / ASKED, rows, AskedLabel)
        missing = sum(row.margin is None for row in rows)
        return RowCounts(
            rows_in=len(rows),
            rows_out=len(rows) - missing,
            rejected={"no_answer": missing} if missing else {},
        )

    yield ask


def judged_pairs(pairs: Sequence[LabelledPair], limit: int) -> list[LabelledPair]:
    """At most `limit` pairs: of each source in turn, in the order of a hash of the prompt."""
    by_source: dict[str, list[LabelledPair]] = {}
    for pair in sorted(pairs, key=lambda each: digest(["judged", each.prompt.prompt_id])):
        by_source.setdefault(pair.prompt.source, []).append(pair)
    sources = [by_source[name] for name in sorted(by_source)]
    in_turn = chain.from_iterable(zip_longest(*sources))
    return [pair for pair in in_turn if pair is not None][:limit]


def _rows(
    pairs: Sequence[LabelledPair],
    kind: ModelKind,
    model: AskedModel,
    margins: Mapping[str, float | None],
) -> list[AskedLabel]:
    return [
        AskedLabel(
            pair.prompt.prompt_id,
            pair.prompt.source,
            pair.annotator,
            kind,
            model.name,
            model.settings,
            margins.get(pair.prompt.prompt_id),
        )
        for pair in pairs
    ]


def _reward_margins(
    job: Job[AuditSpec], model: str, pairs: Sequence[LabelledPair]
) -> dict[str, float | None]:
    """Chosen minus rejected reward, by prompt."""
    scores = job.inputs[f"{SCORES_INPUT}{model}"].rows(SCORES, Score)
    rewards = {score.response_id: score.reward for score in scores}
    margins: dict[str, float | None] = {}
    for pair in pairs:
        chosen, rejected = rewards.get(pair.chosen_id), rewards.get(pair.rejected_id)
        known = chosen is not None and rejected is not None
        margins[pair.prompt.prompt_id] = chosen - rejected if known else None  # type: ignore[operator]
    return margins


def _implicit_margins(job: Job[AuditSpec]) -> dict[str, float]:
    """The champion's implicit reward (without β) of the chosen minus that of the rejected answer.

    None of any prompt if the log-probabilities of both models have different number formats, whose
    rounding would not cancel.
    """
    champion, first = job.inputs[CHAMPION_INPUT], job.inputs[FIRST_INPUT]
    formats = {str(each.manifest.summary.get("number_format")) for each in (champion, first)}
    if len(formats) > 1:
        return {}
    references = {row.prompt_id: row for row in first.rows(LABEL_LOGPS, LabelLogps)}
    return {
        row.prompt_id: (row.chosen - row.rejected) - (other.chosen - other.rejected)
        for row in champion.rows(LABEL_LOGPS, LabelLogps)
        if (other := references.get(row.prompt_id)) is not None
    }


def _judged_margins(
    job: Job[AuditSpec], asked: AskedJudge, pairs: Sequence[LabelledPair]
) -> dict[str, float | None]:
    """The judge's preference for the chosen answer minus ½, by prompt."""
    judge = job.ports.judge(
        judge_in_format(asked.judge, job.number_format),
        model_folders(asked.judge, job.ports),
        job.runtime,
    )
    comparisons = [
        Comparison(prompt.prompt_id, prompt.messages, prompt.rejected or "", prompt.chosen or "")
        for prompt, *_ in pairs
    ]
    result = judge_pairs(
        judge,
        comparisons,
        cache=cache_of(judge, job.ports),
        budget=JudgeBudget(job.runtime.judge_max_calls, job.runtime.judge_max_usd),
        min_coverage=0.0,
        orders=asked.orders,
        seed=asked.seed,
        progress=job.progress,
    )
    return {
        verdict.prompt_id: None if verdict.preference is None else verdict.preference - 0.5
        for verdict in result.verdicts
    }


def _number_format(job: Job[AuditSpec]) -> NumberFormat | None:
    return judge_format(job.spec.judge.judge, job.ports) if job.spec.judge else None


def _summarise(_: Job[AuditSpec], artifact: Artifact) -> Summary:
    """Agreement of each model over all sources."""
    counts = count_agreement(artifact.rows(ASKED, AskedLabel))
    figures: Summary = {}
    for model in dict.fromkeys(each.model for each in counts):
        of_model = [each for each in counts if (each.model, each.grouping) == (model, "source")]
        total, name = total_agreement(of_model, "all"), model.replace(" ", "_")
        interval = total.interval()
        figures |= {
            f"{name}_agreement": total.agreement,
            f"{name}_agreement_lower": interval and interval.lower,
            f"{name}_agreement_upper": interval and interval.upper,
            f"{name}_num_labels": total.num_labels,
            f"{name}_num_missing": total.num_missing,
        }
    return figures


AUDIT = Stage(
    name="audit",
    description="Ask models whether they agree with the labels of the source.",
    version=1,
    image="train",  # a judge may be a reward model; most are servers: no GPU
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
    number_format=_number_format,
)
