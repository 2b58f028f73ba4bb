"""Stage ingest: read the source, validate, deduplicate, decontaminate, split, freeze.

A prompt's split depends only on a hash of its id, so that a prompt is always in the same split,
independent of the rest of the file. Ability questions (rows with an `answer`) are always held out.
Every line of the source is counted: kept, or rejected by a named rule and listed in
`rejected.parquet`.

With `join_labels`, a row with `completion` and `label` is half of a pair. Without, it is a prompt,
and the figure `num_unused_labels` and a warning say how many labels are not used. So they do of
pairs of which as many rows prefer the other answer; where more do, the row is rejected.

For `sample.engine: dataset`, the answers that the source holds for its training prompts are kept,
too; a training prompt without at least two answers is rejected.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.answer_rows import PoolAnswer, parse_answers, parse_pool_prompt
from pvar.artifacts import ShardSpec, Summary
from pvar.decontaminate import EvaluationPrompt, decontaminate
from pvar.dedup import deduplicate
from pvar.digest import digest
from pvar.errors import InputError
from pvar.labelled_pairs import label_states, without_label
from pvar.prompt_rows import (
    has_unpaired_label,
    parse_prompt,
    parse_prompt_or_label,
    source_of,
)
from pvar.records import BadRow, Prompt, Split
from pvar.references import DataReference, Pinned
from pvar.row_counts import RowCounts
from pvar.row_forms import Fields
from pvar.source_columns import SourceColumns, rows_in_form
from pvar.source_forms import SourceFormat
from pvar.unpaired_labels import UnpairedLabel, join_labels
from pvar.withdrawal import ids_of_row
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import RejectedRow, plain_rows, write_table

PROMPTS = "prompts.parquet"
ANSWERS = "answers.parquet"
REJECTED = "rejected.parquet"
UNUSED_LABELS = "unused-labels.txt"
"""Only if there are any: their number."""

logger = logging.getLogger(__name__)

EXAMPLES = '{"prompt": "…"} or {"prompt": "…", "chosen": "…", "rejected": "…"}'
EXAMPLE_WITH_ANSWERS = '{"prompt": "…", "responses": ["…", "…"], "rewards": [1.0, 0.5]}'
"""A row for sample.engine dataset."""


class IngestSpec(BaseModel):
    """The settings that determine the prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: DataReference
    source_name: str
    format: SourceFormat = "auto"
    columns: SourceColumns = SourceColumns()
    source_field: str | None = None
    """Field of a row with the name of its source; without a text there, it is `source_name`."""
    eval_fraction: float
    """0 if the exam has a source of its own; ability questions are held out even then."""
    near_duplicate_similarity: float | None
    decontaminate_against: tuple[DataReference, ...]
    decontaminate_ngram_words: int
    join_labels: bool = False
    """Join unpaired labels to pairs (`pvar/unpaired_labels.py`); if not, their rows are prompts."""
    with_answers: bool = False
    """Keep the answers of the training prompts (`pvar/answer_rows.py`)."""
    withdrawn: tuple[str, ...] = ()
    """Ids of prompts of the source that are left out, sorted."""
    strict_below_words: int = 0
    """Prompts of fewer words are near-duplicates only of those with the same words; 0 if no
    near-duplicates are looked for."""


class _Ingested(NamedTuple):
    prompts: list[Prompt]
    rejected: list[RejectedRow]
    answers: Mapping[str, tuple[PoolAnswer, ...]]
    """By prompt id; empty unless the spec says `with_answers`."""
    num_unused_labels: int
    """Rows with `completion` and `label` that are prompts."""
    num_contradictory_labels: int
    """Pairs whose prompts are kept without them."""


def training_prompts(ingested: Artifact) -> list[Prompt]:
    """The candidate prompts, in the order of their ids."""
    return [row for row in ingested.rows(PROMPTS, Prompt) if row.split == "train"]


def paired_prompts(ingested: Artifact, split: Split) -> list[Prompt]:
    """The prompts of a split of which pairs can be made, in the order of their ids.

    Held-out ability questions are left out: their answers are right or wrong, not preferred.
    """
    rows = ingested.rows(PROMPTS, Prompt)
    return [row for row in rows if row.split == split and not row.is_question]


def split_of(prompt_id: str, eval_fraction: float) -> Split:
    """Split of a prompt: `eval` with probability `eval_fraction` over prompt ids."""
    position = int(digest(["split", prompt_id], length=8), 16) / 16**8
    return "eval" if position < eval_fraction else "train"


def held_out_prompts(
    prompts: Iterable[Prompt],
    *,
    eval_fraction: float,
    min_similarity: float | None,
    strict_below_words: int,
) -> list[Prompt]:
    """The prompts that this stage holds out of these, ability questions included."""
    placed = [each._replace(split=side_of(each, eval_fraction)) for each in prompts]
    kept = deduplicate(
        sorted(placed, key=row_rank),
        min_similarity=min_similarity,
        strict_below_words=strict_below_words,
    ).prompts
    return sorted(
        (prompt for prompt in kept if prompt.split == "eval"), key=lambda each: each.prompt_id
    )


def _ingest(job: Job[IngestSpec]) -> _Ingested:
    source = Pinned.parse(job.spec.source).location
    prompts, rejected, answers, *unused = _read(job)
    num_rows, unusable = len(prompts) + len(rejected), _rejections_text(rejected)
    if not prompts:
        raise InputError(
            f"{source}: none of its {num_rows} rows is a prompt{unusable}; give rows such as "
            f"{EXAMPLE_WITH_ANSWERS if job.spec.with_answers else EXAMPLES}, or name your columns: "
            "ingest.columns={prompt: …} (docs/data.md)"
        )
    job.progress.begin(f"looking for duplicates among {len(prompts)} prompts")
    deduplicated = deduplicate(
        prompts,
        min_similarity=job.spec.near_duplicate_similarity,
        strict_below_words=job.spec.strict_below_words,
    )
    rejected += [
        RejectedRow(duplicate.prompt_id, duplicate.reason, f"like {duplicate.kept_prompt_id}")
        for duplicate in deduplicated.removed
    ]
    job.progress.begin("reading the prompts of benchmarks", unit="rows")
    evaluation = list(_evaluation_prompts(job))
    job.progress.begin(f"comparing with {len(evaluation)} prompts of benchmarks")
    training = [prompt for prompt in deduplicated.prompts if prompt.split == "train"]
    clean = decontaminate(training, evaluation, ngram_words=job.spec.decontaminate_ngram_words)
    rejected += [
        RejectedRow(
            removal.prompt_id, "contaminated", f"{removal.evaluation_prompt}: {removal.shared}"
        )
        for removal in clean.removed
    ]
    held_out = [prompt for prompt in deduplicated.prompts if prompt.split == "eval"]
    num_questions = sum(prompt.is_question for prompt in held_out)
    is_exam = job.spec.eval_fraction > 0
    if not clean.prompts or (is_exam and len(held_out) == num_questions):
        raise InputError(
            f"{source}: {len(clean.prompts)} prompts are left for training and "
            f"{len(held_out) - num_questions} for evaluation, of {num_rows} rows with "
            f"{num_questions} ability questions{unusable}; both need at least one: add prompts, "
            f"or change ingest.eval_fraction ({job.spec.eval_fraction:g})"
        )
    kept = sorted([*clean.prompts, *held_out], key=lambda each: each.prompt_id)
    return _Ingested(kept, rejected, answers, *unused)


def _rejections_text(rejected: list[RejectedRow]) -> str:
    """The number of rejected rows by rule, and the first of them; empty if there are none."""
    if not rejected:
        return ""
    first = rejected[0]
    reasons = ", ".join(
        f"{count} {rule}" for rule, count in Counter(r.rule for r in rejected).items()
    )
    return f" ({reasons}; the first is {first.row_id}: {first.detail})"


def _read(job: Job[IngestSpec]) -> _Ingested:
    prompts: list[Prompt] = []
    labels: dict[int, UnpairedLabel] = {}
    rejected: list[RejectedRow] = []
    answers: dict[str, tuple[PoolAnswer, ...]] = {}
    num_unused_labels = 0
    withdrawn = frozenset(job.spec.withdrawn)
    job.progress.begin("reading the source", unit="rows")
    for row in rows_in_form(
        job.ports.source_rows(job.spec.source),
        job.spec.format,
        job.spec.columns,
        Pinned.parse(job.spec.source).location,
    ):
        job.progress.advance()
        if isinstance(row, BadRow):
            rejected.append(RejectedRow(f"line {row.number}", row.rule, row.reason))
            continue
        if withdrawn and not withdrawn.isdisjoint(ids_of_row(row.fields)):
            rejected.append(RejectedRow(f"line {row.number}", "withdrawn", ""))
            continue
        parsed = _parse(row.fields, job.spec)
        if isinstance(parsed, str):
            rejected.append(RejectedRow(f"line {row.number}", parsed, _excerpt(row.fields)))
            continue
        if isinstance(parsed, UnpairedLabel):
            labels[row.number] = parsed
            continue
        prompts.append(parsed.prompt)
        num_unused_labels += has_unpaired_label(row.fields, parsed.prompt)
        answers.setdefault(parsed.prompt.prompt_id, parsed.answers)
    joined = join_labels(labels.values())
    prompts += joined.prompts
    numbers = list(labels)
    rejected += [
        RejectedRow(f"line {numbers[each.place]}", each.rule, each.detail)
        for each in joined.rejected
    ]
    rows = list(zip(prompts, label_states(prompts), strict=True))
    rejected += [
        RejectedRow(prompt.prompt_id, "contradictory_label", "more rows prefer the other answer")
        for prompt, state in rows
        if state == "outvoted"
    ]
    undecided = [without_label(prompt) for prompt, state in rows if state == "undecided"]
    prompts = [*(prompt for prompt, state in rows if state == "kept"), *undecided]
    prompts.sort(key=row_rank)
    return _Ingested(prompts, rejected, answers, num_unused_labels, len(undecided))


def row_rank(prompt: Prompt) -> tuple[bool, tuple[str, ...]]:
    """Of equal rows the first stays: a question before a prompt, whatever their order in a file."""
    return not prompt.is_question, prompt.accepted_answers


class _Parsed(NamedTuple):
    prompt: Prompt
    answers: tuple[PoolAnswer, ...] = ()


def _parse(fields: Fields, spec: IngestSpec) -> _Parsed | UnpairedLabel | str:
    """The prompt of a row with its split, and its answers if they are kept and trained on; or a
    label, if labels are joined."""
    parsed = _parser(spec)(fields, source_of(fields, spec.source_field, spec.source_name))
    if isinstance(parsed, str):
        return parsed
    if isinstance(parsed, UnpairedLabel):
        return parsed._replace(prompt=_with_split(parsed.prompt, spec))
    prompt = _with_split(parsed, spec)
    if not spec.with_answers or prompt.split == "eval":
        return _Parsed(prompt)
    answers = parse_answers(fields, prompt.prompt_id)
    return answers if isinstance(answers, str) else _Parsed(prompt, answers)


def _parser(spec: IngestSpec) -> Callable[[Fields, str], Prompt | UnpairedLabel | str]:
    if spec.with_answers:
        return parse_pool_prompt
    return parse_prompt_or_label if spec.join_labels else parse_prompt


def _with_split(prompt: Prompt, spec: IngestSpec) -> Prompt:
    return prompt._replace(split=side_of(prompt, spec.eval_fraction))


def side_of(prompt: Prompt, eval_fraction: float) -> Split:
    """The side of a prompt: ability questions are held out."""
    return "eval" if prompt.is_question else split_of(prompt.prompt_id, eval_fraction)


def _excerpt(fields: object) -> str:
    text = repr(fields)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _evaluation_prompts(job: Job[IngestSpec]) -> Iterator[EvaluationPrompt]:
    for reference in job.spec.decontaminate_against:
        location = Pinned.parse(reference).location
        for row in job.ports.source_rows(reference):
            job.progress.advance()
            if isinstance(row, BadRow):
                raise InputError(f"{location}: line {row.number} is invalid: {row.reason}; fix it")
            text = row.fields.get("instruction")
            if text is None:
                text = row.fields.get("prompt")
            if not isinstance(text, str):
                raise InputError(
                    f"{location}: row {row.number} has no text `instruction` or `prompt`, which "
                    "ingest.decontaminate_against needs in every row; add it or remove the row"
                )
            yield EvaluationPrompt(f"{Path(location).name}:{row.number}", text)


@contextmanager
def _open_worker(job: Job[IngestSpec]) -> Iterator[Work]:
    def ingest(_: ShardSpec, folder: Path) -> RowCounts:
        ingested = _ingest(job)
        write_table(folder / PROMPTS, ingested.prompts, Prompt)
        write_table(folder / REJECTED, ingested.rejected, RejectedRow)
        if job.spec.with_answers:
            ids = [prompt.prompt_id for prompt in ingested.prompts if prompt.split == "train"]
            answers = (row for prompt_id in ids for row in ingested.answers[prompt_id])
            write_table(folder / ANSWERS, answers, PoolAnswer)
        if num_unused := ingested.num_unused_labels + ingested.num_contradictory_labels:
            (folder / UNUSED_LABELS).write_text(f"{num_unused}\n")
        if ingested.num_contradictory_labels:
            logger.warning(
                "%s: %d labels are not used, because as many rows prefer the other answer: their "
                "prompts are kept without them",
                job.spec.source_name,
                ingested.num_contradictory_labels,
            )
        if ingested.num_unused_labels:
            logger.warning(
                "%s: %d rows have completion and label, which are not used: their prompts are "
                "sampled; to train on the labels: ingest.join_labels=true and pair.own_labels=true",
                job.spec.source_name,
                ingested.num_unused_labels,
            )
        rejected = Counter(row.rule for row in ingested.rejected)
        return RowCounts(
            rows_in=len(ingested.prompts) + len(ingested.rejected),
            rows_out=len(ingested.prompts),
            rejected=dict(sorted(rejected.items())),
        )

    yield ingest


def _summarise(_: Job[IngestSpec], artifact: Artifact) -> Summary:
    splits: Counter[str] = Counter()
    num_annotated = 0
    for batch in artifact.batches(PROMPTS, ["split", "accepted_answers", "chosen"]):
        for split, accepted, chosen in plain_rows(batch):
            splits["question" if accepted else split] += 1
            num_annotated += chosen is not None
    return {
        "num_train_prompts": splits["train"],
        "num_eval_prompts": splits["eval"],
        "num_ability_questions": splits["question"],
        "num_annotated": num_annotated,
        **_unused_labels(artifact),
    }


def _unused_labels(artifact: Artifact) -> Summary:
    (shard,) = artifact.manifest.shards
    if all(file.name != UNUSED_LABELS for file in shard.files):
        return {}
    return {"num_unused_labels": int(artifact.path(shard, UNUSED_LABELS).read_text())}


INGEST = Stage(
    name="ingest",
    description="Read, validate, deduplicate and split the prompts.",
    version=2,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
