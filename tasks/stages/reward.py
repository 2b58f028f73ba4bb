"""Stage reward: reward modelling with TRL on the labels so far.

The trainer is in `tasks/training/reward_trainer.py`.

Every training starts from the same model and is on all labels, so that the result does not depend
on how they were divided into batches. Labels that are held out are not trained on; stage adopt
measures on them. Checkpoints are written to the store, and a killed run resumes from the newest one
that is complete. Without a new label nothing is trained, and the artifact has no model.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.number_format import NumberFormat
from pvar.references import ModelReference
from pvar.reward_training import RewardTrainConfig
from pvar.row_counts import RowCounts
from pvar.train_config import TrainConfig
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import RejectedRow, TokenPair, TrainStep, write_table
from tasks.stages.reward_labels import read_labels
from tasks.training.checkpoints import delete_checkpoints, newest_checkpoint
from tasks.training.job_watcher import checkpoints_of, train_in_job
from tasks.training.label_rows import encode_labelled_pairs
from tasks.training.training_run import STEPS, TrainingPlan

logger = logging.getLogger(__name__)

REJECTED = "rejected.parquet"


class RewardSpec(BaseModel):
    """The settings that determine the reward model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelReference
    """The starting model."""
    settings: RewardTrainConfig
    held_out_fraction: float


@contextmanager
def _open_worker(job: Job[RewardSpec]) -> Iterator[Work]:
    from transformers import AutoTokenizer

    def train(_: ShardSpec, folder: Path) -> RowCounts:
        job.progress.begin("encoding the labels")
        labels = read_labels(job.inputs, job.spec.held_out_fraction)
        if not labels.num_new:
            logger.warning("%s: no new label to train on, so no model is trained", job.keys.root)
            write_table(folder / STEPS, [], TrainStep)
            return RowCounts(rows_in=0, rows_out=0)
        tokenizer = AutoTokenizer.from_pretrained(
            job.ports.model_folder(job.spec.model), trust_remote_code=False
        )
        pairs = [label.pair for label in labels.training]
        encoded = encode_labelled_pairs(pairs, tokenizer, job.spec.settings.max_length_tokens)
        write_table(folder / REJECTED, encoded.rejected, RejectedRow)
        rejected: dict[str, int] = {}
        for row in encoded.rejected:
            rejected[row.rule] = rejected.get(row.rule, 0) + 1
        if encoded.pairs:
            plan = _plan(job, encoded.pairs, folder)
            job.progress.begin("loading the model and making the first step")
            train_in_job(plan, job, "reward_training.train.learning_rate")
            job.progress.begin("storing the model")
        else:
            logger.warning("%s: no label can be trained on: %s", job.keys.root, rejected)
            write_table(folder / STEPS, [], TrainStep)
        return RowCounts(rows_in=len(pairs), rows_out=len(encoded.pairs), rejected=rejected)

    yield train


def _plan(job: Job[RewardSpec], pairs: list[TokenPair], output: Path) -> TrainingPlan:
    pairs_path = job.scratch / "pairs.parquet"
    write_table(pairs_path, pairs, TokenPair)
    checkpoint = newest_checkpoint(
        job.ports.store, checkpoints_of(job), job.plan, job.scratch / "resume"
    )
    if checkpoint is not None:
        logger.info("%s: going on from %s", job.keys.root, checkpoint.name)
    settings = job.spec.settings.model_dump()
    return TrainingPlan(
        settings=TrainConfig.model_validate({**settings, "precision": job.number_format}),
        is_reward_model=True,
        policy=job.ports.model_folder(job.spec.model),
        pairs=pairs_path,
        reference=None,
        resume=checkpoint,
        scratch=job.scratch / "trainer",
        output=output,
        num_processes=job.runtime.num_processes,
        pairs_per_device=job.runtime.pairs_per_device,
        checkpoint_steps=job.runtime.checkpoint_steps,
    )


def _number_format(job: Job[RewardSpec]) -> NumberFormat:
    return job.ports.number_format("auto", learns=True)


def has_reward_model(trained: Artifact) -> bool:
    """Whether the artifact has a model; it has none if there was no label to train on."""
    return trained.manifest.row_counts.rows_out > 0


def _summarise(job: Job[RewardSpec], artifact: Artifact) -> Summary:
    delete_checkpoints(job.ports.store, checkpoints_of(job))
    steps = artifact.rows(STEPS, TrainStep)
    return {
        "num_steps": len(steps),
        "num_pairs": artifact.manifest.row_counts.rows_out,
        "num_new_labels": read_labels(job.inputs, job.spec.held_out_fraction).num_new,
        "training_seconds": sum(step.seconds or 0 for step in steps),
        "loss_first": steps[0].loss if steps else None,
        "loss_last": steps[-1].loss if steps else None,
        "accuracy_last": steps[-1].accuracy if steps else None,
    }


REWARD = Stage(
    name="reward",
    description="Train a reward model on the labels with TRL.",
    version=1,
    image="train",
    wants_gpu=True,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
    number_format=_number_format,
)
