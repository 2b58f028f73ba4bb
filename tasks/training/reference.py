"""Reference log-probabilities: a separate artifact `reference/…`, made by stage train.

    log π_ref(y_w|x), log π_ref(y_l|x) for every pair; for KTO also those of its neighbour's answers

They depend only on the pairs, the reference model and its number format. A later run on the same
pairs with another learning rate, β or number of epochs reuses them.

Their recipe records the number format, and every training that subtracts them uses the same one, so
that rounding cancels. So the reference artifact is begun before the training artifact.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

from pydantic import BaseModel, ConfigDict, Field

from pvar.artifacts import Recipe, ShardSpec, Summary
from pvar.errors import StageError
from pvar.number_format import NumberFormat
from pvar.records import Pair, Response
from pvar.references import ModelReference
from pvar.row_counts import RowCounts
from pvar.train_config import TrainConfig, TrainingMethod
from tasks.engine.artifact import Artifact, ArtifactKeys
from tasks.engine.progress_log import ProgressLog
from tasks.engine.stage import Job, Stage, Work, begin_artifact, run_stage
from tasks.engine.tables import ReferenceLogps, TokenPair, write_table
from tasks.stages.pair import PAIRS
from tasks.stages.sample import RESPONSES
from tasks.training.logps import PromptAnswer, answer_logps
from tasks.training.model import load_frozen
from tasks.training.token_rows import encode_pairs, with_neighbours

LOGPS = "logps.parquet"


def has_reference(method: TrainingMethod) -> bool:
    """Whether the method's loss is relative to the starting policy."""
    match method:
        case "dpo" | "ipo" | "kto":
            return True
        case "simpo" | "orpo":
            return False
        case _:
            assert_never(method)


class ReferenceSpec(BaseModel):
    """The settings that determine the log-probabilities."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: ModelReference
    """The reference model, which is the starting model."""
    max_length_tokens: int
    """Longer pairs have no log-probabilities."""
    precision: str
    frozen_base: bool
    """Whether the base weights are frozen (LoRA) and so stored in the training precision."""
    for_kto: bool
    settings: TrainConfig = Field(exclude=True)


def reference_spec(policy: str, settings: TrainConfig) -> ReferenceSpec:
    """The training settings on which the reference depends."""
    return ReferenceSpec(
        policy=policy,
        max_length_tokens=settings.max_length_tokens,
        precision=settings.precision,
        frozen_base=settings.lora is not None,
        for_kto=settings.method == "kto",
        settings=settings,
    )


def reference_format(job: Job[Any], spec: ReferenceSpec) -> NumberFormat | None:
    """The number format with which the reference was begun, now or earlier."""
    recipe, own = _reference(job, spec)
    return begin_artifact(REFERENCE, recipe, own).number_format


def make_reference(job: Job[Any], spec: ReferenceSpec) -> Artifact:
    """Make or find the artifact, from the inputs of the training that needs it.

    Raises StageError if it was begun in another number format than the training.
    """
    found = reference_format(job, spec)
    recipe, own = _reference(job, spec)
    if found != job.number_format:
        raise StageError(
            f"{own.keys.root} has number format {found}, but {job.keys.root} was begun in "
            f"{job.number_format}, so rounding would not cancel; delete the folder "
            f"{job.keys.root} and run again"
        )
    return run_stage(REFERENCE, recipe, own).artifact


def _reference(job: Job[Any], spec: ReferenceSpec) -> tuple[Recipe, Job[ReferenceSpec]]:
    inputs = {name: job.inputs[name] for name in ("pairs", "responses")}  # not held-out ones
    digests = {name: artifact.keys.digest for name, artifact in inputs.items()}
    recipe = Recipe.of(REFERENCE.name, REFERENCE.version, spec, digests)
    own = replace(
        job,
        spec=spec,
        inputs=inputs,
        keys=ArtifactKeys(REFERENCE.name, recipe.digest),
        scratch=job.scratch / REFERENCE.name,
    )
    return recipe, own


@contextmanager
def _open_worker(job: Job[ReferenceSpec]) -> Iterator[Work]:
    from transformers import AutoTokenizer

    spec = job.spec
    folder = job.ports.model_folder(spec.policy)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    pairs = job.inputs["pairs"].rows(PAIRS, Pair)
    encoded = encode_pairs(
        pairs, job.inputs["responses"].rows(RESPONSES, Response), tokenizer, spec.max_length_tokens
    )
    precision = job.number_format
    settings = spec.settings.model_copy(update={"precision": precision})
    model = load_frozen(folder, settings)

    def compute(_: ShardSpec, folder: Path) -> RowCounts:
        rows = _rows(encoded.pairs, with_kl=spec.for_kto)
        answers = [row for four in rows.values() for row in four]
        job.progress.begin(total=len(set(answers)), unit="answers")
        with counting_answers(model, job.progress):
            logps = answer_logps(model, answers, autocast=precision == "bfloat16")
        table = [
            ReferenceLogps(pair_id, *[logps[row] for row in four], *[None] * (4 - len(four)))
            for pair_id, four in rows.items()
        ]
        write_table(folder / LOGPS, table, ReferenceLogps)
        return RowCounts(
            rows_in=len(pairs),
            rows_out=len(encoded.pairs),
            rejected=encoded.reasons,
        )

    yield compute


@contextmanager
def counting_answers(model: Any, progress: ProgressLog) -> Iterator[None]:
    """Report each batch that the model has computed."""

    def count(_: Any, __: Any, inputs: Mapping[str, Any], ___: Any) -> None:
        progress.advance(len(inputs["input_ids"]))

    hook = model.register_forward_hook(count, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _rows(pairs: Sequence[TokenPair], *, with_kl: bool) -> Mapping[str, list[PromptAnswer]]:
    """Chosen and rejected answer of each pair and, if requested, those of its neighbour."""
    return {
        pair.pair_id: [
            PromptAnswer(tuple(pair.prompt_ids), tuple(answer))
            for answer in (
                pair.chosen_ids,
                pair.rejected_ids,
                *((other.chosen_ids, other.rejected_ids) if with_kl else ()),
            )
        ]
        for pair, other in with_neighbours(pairs)
    }


def _summarise(_: Job[ReferenceSpec], artifact: Artifact) -> Summary:
    return {"num_pairs": artifact.manifest.row_counts.rows_out}


def _number_format(job: Job[ReferenceSpec]) -> NumberFormat:
    """The format of a training that was begun before, else the hardware's."""
    return job.number_format or job.ports.number_format(job.spec.settings.precision, learns=True)


REFERENCE = Stage(
    name="reference",
    description="Compute the reference's log-probabilities of the pairs.",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
    number_format=_number_format,
)
