"""Stage train: preference optimisation with TRL on the selected pairs (`tasks/training/`).

The reference of DPO, IPO and KTO is the starting policy; its log-probabilities are a separate
artifact, computed once. Checkpoints are written to the store, and a killed run resumes from the
newest complete one. Pairs that are too long are dropped and counted, not truncated. Margins of
held-out pairs (`evaluate.margins`) are measured during training (`tasks/training/held_out.py`).
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.errors import InputError
from pvar.number_format import NumberFormat
from pvar.records import Pair, Response
from pvar.references import ModelReference
from pvar.row_counts import RowCounts
from pvar.train_config import TrainConfig
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import HeldOutMargin, RejectedRow, TokenPair, TrainStep, write_table
from tasks.stages.pair import PAIRS, why_no_pairs
from tasks.stages.sample import RESPONSES
from tasks.training.checkpoints import delete_checkpoints, newest_checkpoint
from tasks.training.job_watcher import checkpoints_of, train_in_job
from tasks.training.reference import (
    LOGPS,
    ReferenceSpec,
    has_reference,
    make_reference,
    reference_format,
    reference_spec,
)
from tasks.training.token_rows import EncodedPairs, encode_pairs, pair_id_of
from tasks.training.training_run import HELD_OUT_MARGINS, MODEL, STEPS, TrainingPlan

__all__ = ["MODEL", "STEPS", "TRAIN", "TrainSpec"]

logger = logging.getLogger(__name__)

REJECTED = "rejected.parquet"


class TrainSpec(BaseModel):
    """The settings that determine the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: ModelReference
    """The starting model, which is also the reference."""
    settings: TrainConfig


@contextmanager
def _open_worker(job: Job[TrainSpec]) -> Iterator[Work]:
    def train(_: ShardSpec, folder: Path) -> RowCounts:
        num_pairs = job.inputs["pairs"].manifest.row_counts.rows_out
        job.progress.begin("encoding the pairs")
        encoded = _encode(job)
        plan = _plan(job, encoded.pairs, folder)
        job.progress.begin("loading the model and making the first step")
        train_in_job(plan, job, "train.learning_rate")
        job.progress.begin("storing the model")
        write_table(folder / REJECTED, encoded.rejected, RejectedRow)
        return RowCounts(
            rows_in=num_pairs,
            rows_out=len(encoded.pairs),
            rejected=encoded.reasons,
        )

    yield train


def _encode(job: Job[TrainSpec]) -> EncodedPairs:
    """The pairs as token ids; InputError if there are none, or all are too long."""
    root, counts = job.inputs["pairs"].keys.root, job.inputs["pairs"].manifest.row_counts
    if not counts.rows_out:
        raise InputError(
            f"{root} has no pairs to train on: none was made of {counts.rows_in} "
            f"({counts.rejected}); {why_no_pairs(counts)}"
        )
    encoded = _encode_input(job, "pairs", "responses")
    if not encoded.pairs:
        raise InputError(
            f"{root}: none of its {len(encoded.rejected)} pairs can be trained on "
            f"({_why_rejected(job, encoded)})"
        )
    return encoded


def _encode_held_out(job: Job[TrainSpec]) -> list[TokenPair]:
    encoded = _encode_input(job, "held_out_pairs", "held_out_responses")
    if encoded.rejected or not encoded.pairs:
        logger.warning(
            "%s: margins are measured on %d held-out pairs (%s)",
            job.keys.root,
            len(encoded.pairs),
            _why_rejected(job, encoded),
        )
    return encoded.pairs


def _why_rejected(job: Job[TrainSpec], encoded: EncodedPairs) -> str:
    """How many pairs cannot be trained on, and what to change; one refusal as an example."""
    reasons = encoded.reasons
    said = []
    if too_long := reasons.get("too_long"):
        limit = job.spec.settings.max_length_tokens
        said.append(f"{too_long} longer than train.max_length_tokens = {limit}: raise it")
    if refused := reasons.get("template_refused"):
        detail = next(row.detail for row in encoded.rejected if row.rule == "template_refused")
        said.append(f"{refused} refused by the policy's chat template, such as {detail}")
    return "; ".join(said) or "there are no others"


def _encode_input(job: Job[TrainSpec], pairs: str, responses: str) -> EncodedPairs:
    from transformers import AutoTokenizer

    return encode_pairs(
        job.inputs[pairs].rows(PAIRS, Pair),
        job.inputs[responses].rows(RESPONSES, Response),
        AutoTokenizer.from_pretrained(
            job.ports.model_folder(job.spec.policy), trust_remote_code=False
        ),
        job.spec.settings.max_length_tokens,
    )


def _weighted(job: Job[TrainSpec], pairs: list[TokenPair]) -> list[TokenPair]:
    """The pairs of one pass: those with labels of the data as often as their weight says."""
    weight = job.spec.settings.label_weight
    if weight == 1:
        return pairs
    labelled = {
        pair_id_of(pair)
        for pair in job.inputs["pairs"].rows(PAIRS, Pair)
        if pair.chosen_reward is None
    }
    num_labelled = sum(pair.pair_id in labelled for pair in pairs)
    if num_labelled in (0, len(pairs)):
        logger.warning(
            "%s: train.label_weight = %d weighs nothing: %d of %d pairs have labels of the data",
            job.keys.root,
            weight,
            num_labelled,
            len(pairs),
        )
    return [pair for pair in pairs for _ in range(weight if pair.pair_id in labelled else 1)]


def _reference_spec(spec: TrainSpec) -> ReferenceSpec:
    return reference_spec(spec.policy, spec.settings)


def _number_format(job: Job[TrainSpec]) -> NumberFormat | None:
    """The number format of the reference; without a reference, the hardware's."""
    settings = job.spec.settings
    if has_reference(settings.method):
        return reference_format(job, _reference_spec(job.spec))
    return job.ports.number_format(settings.precision, learns=True)


def _plan(job: Job[TrainSpec], pairs: list[TokenPair], output: Path) -> TrainingPlan:
    spec = job.spec
    settings = spec.settings.model_copy(update={"precision": job.number_format})
    pairs_path = job.scratch / "pairs.parquet"
    write_table(pairs_path, _weighted(job, pairs), TokenPair)
    held_out_path = None
    if "held_out_pairs" in job.inputs:
        held_out_path = job.scratch / "held_out_pairs.parquet"
        write_table(held_out_path, _encode_held_out(job), TokenPair)
    reference = None
    if has_reference(settings.method):
        artifact = make_reference(job, _reference_spec(spec))
        (reference,) = artifact.paths(LOGPS)
    checkpoint = newest_checkpoint(
        job.ports.store, checkpoints_of(job), job.plan, job.scratch / "resume"
    )
    if checkpoint is not None:
        logger.info("%s: going on from %s", job.keys.root, checkpoint.name)
    return TrainingPlan(
        settings=settings,
        policy=job.ports.model_folder(spec.policy),
        pairs=pairs_path,
        reference=reference,
        held_out=held_out_path,
        resume=checkpoint,
        scratch=job.scratch / "trainer",
        output=output,
        num_processes=job.runtime.num_processes,
        pairs_per_device=job.runtime.pairs_per_device,
        checkpoint_steps=job.runtime.checkpoint_steps,
    )


def _summarise(job: Job[TrainSpec], artifact: Artifact) -> Summary:
    delete_checkpoints(job.ports.store, checkpoints_of(job))
    steps = artifact.rows(STEPS, TrainStep)
    last = steps[-1]
    return {
        "num_steps": len(steps),
        "num_pairs": artifact.manifest.row_counts.rows_out,
        "num_pairs_seen": len(steps) * job.spec.settings.pairs_per_step,
        "num_tokens": _total(step.num_tokens for step in steps),
        "training_seconds": _total(step.seconds for step in steps),
        "loss_first": steps[0].loss,
        "loss_last": last.loss,
        "margin_last": last.margin,
        "accuracy_last": last.accuracy,
        "grad_norm_max": max(step.grad_norm for step in steps),
        **_held_out_figures(job, artifact),
    }


def _held_out_figures(job: Job[TrainSpec], artifact: Artifact) -> Summary:
    """How many held-out pairs were measured, and their mean margin at the end."""
    if "held_out_pairs" not in job.inputs:
        return {}
    rows = held_out_margins(artifact)
    last = [row.margin for row in rows if row.step == rows[-1].step]
    return {
        "num_held_out_pairs": len(last),
        "held_out_margin_last": fmean(last) if last else None,
    }


def held_out_margins(artifact: Artifact) -> list[HeldOutMargin]:
    """The margins of held-out pairs, by step; none if none were measured."""
    return artifact.rows(HELD_OUT_MARGINS, HeldOutMargin)


def _total(values: Iterable[float | None]) -> float | None:
    """The sum; None if a step was made by a version that did not count."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


TRAIN = Stage(
    name="train",
    description="Train on the pairs with TRL.",
    version=3,
    image="train",
    wants_gpu=True,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
    number_format=_number_format,
)
