"""Stage annotate: people's labels of selected prompts. It waits until somebody brings them.

    annotations/{digest}/queue.jsonl      the pairs to ask about, best first
    annotations/{digest}/answers.jsonl    the answers, one line each; the stage goes on with them

The queue is written once, so people are asked about the same pairs whatever happens to the inputs.
Both files are outside the artifact: answers are work that is not to be lost with it. The answers
that are there when the stage goes on are those that count.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from pvar.annotation_answers import (
    PairAnswer,
    PairLabels,
    has_answered,
    label_pairs,
    parse_answer,
    to_answer_row,
)
from pvar.annotation_queue import (
    MIN_FOR_BOUND,
    AnnotationQueue,
    AnsweredPrompt,
    QueuedPair,
    QueueMeasure,
    make_queue,
    parse_pair,
    to_pair_row,
)
from pvar.artifacts import ShardSpec, Summary
from pvar.combine import CombinationRule
from pvar.errors import InputError, NotFoundError
from pvar.labelled_pairs import is_labelled
from pvar.ports import Store
from pvar.records import Pair
from pvar.row_counts import RowCounts
from pvar.selection import RewardMatrix
from pvar.selection_config import AnnotateConfig, RewardSettings
from tasks.engine.artifact import Artifact, ArtifactKeys
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.stage_outcome import Waiting
from tasks.engine.tables import PromptVariance, write_table
from tasks.stages.reward_matrix import Rewards, read_rewards
from tasks.stages.select import VARIANCE

logger = logging.getLogger(__name__)

LABELS = "labels.parquet"
ANNOTATIONS = "annotations"


class AnnotateSpec(BaseModel):
    """The settings that determine what is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: AnnotateConfig
    reward_models: tuple[str, ...]
    """Names of the score inputs by which prompts are asked about, in order."""
    rewards: RewardSettings
    combination: CombinationRule
    """How several reward models are combined into one PVar."""
    uses_labels: bool = False
    """Whether prompts that the data labels are trained on these labels, and not asked about."""


def answered_prompts(rewards: Rewards) -> list[AnsweredPrompt]:
    """The prompts with the texts of their usable responses, in the order of the matrix."""
    texts = {response.response_id: response.text for response in rewards.responses}
    return [
        AnsweredPrompt(
            prompt, tuple(texts[each] for each in rewards.usable.get(prompt.prompt_id, ()))
        )
        for prompt in rewards.prompts
    ]


def asked_digests(store: Store) -> list[str]:
    """Digests of the stages that have asked, newest first."""
    queues = [info for info in store.list(f"{ANNOTATIONS}/") if info.key.endswith("/queue.jsonl")]
    newest = sorted(queues, key=lambda info: info.modified, reverse=True)
    return [info.key.split("/")[1] for info in newest]


def queued_pairs(store: Store, digest: str) -> list[QueuedPair]:
    """The pairs that the stage with this digest asks about. InputError if it has not asked yet."""
    try:
        lines = store.read(_key(digest, "queue")).decode().splitlines()
    except NotFoundError as error:
        raise InputError(f"annotate/{digest} has not asked yet; start its run first") from error
    return [parse_pair(json.loads(line)) for line in lines]


def keep_answers(store: Store, digest: str, answers: Iterable[PairAnswer]) -> None:
    """Put the answers with which the stage goes on, in place of earlier ones.

    Raises InputError if it has gone on: its artifact does not change any more.
    """
    if any(True for _ in store.list(ArtifactKeys(ANNOTATE.name, digest).manifest)):
        raise InputError(
            f"annotate/{digest} went on with the answers that were there, so these come too late "
            "for its run; to train a later one on them: pvar queue import ANSWERS --queue FOLDER "
            "--out FILE, with the FOLDER of pvar queue fetch, and put FILE under incoming/"
        )
    store.write(_key(digest, "answers"), _lines(map(to_answer_row, answers)))


def has_answers(store: Store, digest: str) -> bool:
    """Whether the stage with this digest can go on."""
    return any(True for _ in store.list(_key(digest, "answers")))


def _key(digest: str, name: str) -> str:
    return f"{ANNOTATIONS}/{digest}/{name}.jsonl"


def _lines(rows: Iterable[dict[str, object]]) -> bytes:
    # ASCII, so that no character of a text ends a line.
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _queue(job: Job[AnnotateSpec]) -> AnnotationQueue:
    """The queue of the inputs. Raises InputError if there is nothing to ask about any of them."""
    spec = job.spec
    rewards = read_rewards(job.inputs, spec.reward_models, spec.rewards)
    table = job.inputs["selection"].rows(VARIANCE, PromptVariance)
    selected = {row.prompt_id for row in table if row.selected}
    prompts = answered_prompts(rewards)
    found = [row for row, each in enumerate(prompts) if each.prompt.prompt_id in selected]
    kept = [row for row in found if not (spec.uses_labels and is_labelled(prompts[row].prompt))]
    queue = make_queue(
        [prompts[row] for row in kept],
        RewardMatrix(np.asarray(rewards.matrix[:, kept]), rewards.scales, spec.combination),
        measure=spec.settings.measure,
        budget=spec.settings.budget,
    )
    num_labelled = len(found) - len(kept)
    if found and not queue.pairs and not num_labelled:
        raise InputError(
            f"{job.keys.root}: none of {len(found)} selected prompts can be asked about "
            f"({_what_is_missing(spec.settings.measure)}); raise sample.num_responses, set "
            "annotate.measure to pvar, or annotate to null"
        )
    labelled = {"labelled": num_labelled} if num_labelled else {}
    counts = RowCounts(rows_in=num_labelled, rejected=labelled) + queue.row_counts
    return queue._replace(row_counts=counts)


def _what_is_missing(measure: QueueMeasure) -> str:
    num_responses = MIN_FOR_BOUND if measure == "pvar_lower" else 2
    return f"{measure} needs {num_responses} usable responses with a reward"


@contextmanager
def _open_worker(job: Job[AnnotateSpec]) -> Iterator[Work]:
    def make(_: ShardSpec, folder: Path) -> RowCounts:
        store, digest = job.ports.store, job.keys.digest
        queue = _asked(_queue(job), store, digest)
        labelled = _labels(store, digest, queue.pairs)
        pairs = [
            Pair(each.pair.prompt_id, each.pair.messages, each.chosen, each.rejected, None, None)
            for each in labelled.labels
        ]
        write_table(folder / LABELS, sorted(pairs, key=lambda pair: pair.prompt_id), Pair)
        num_unlabelled = len(queue.pairs) - len(pairs)
        unlabelled = {"no_label": num_unlabelled} if num_unlabelled else {}
        return RowCounts(
            rows_in=queue.row_counts.rows_in,
            rows_out=len(pairs),
            rejected={**queue.row_counts.rejected, **unlabelled},
        )

    yield make


def _asked(queue: AnnotationQueue, store: Store, digest: str) -> AnnotationQueue:
    """The queue that people are asked about: the first one that was written with this digest.

    Another one follows from the same settings if the responses were deleted and sampled again.
    """
    store.create(_key(digest, "queue"), _lines(map(to_pair_row, queue.pairs)))
    pairs = tuple(queued_pairs(store, digest))
    if pairs == queue.pairs:
        return queue
    logger.warning(
        "annotate/%s: its inputs were made again, and would give another queue (%d of its %d pairs "
        "are the same); the first queue stays, because people were asked about it",
        digest,
        len(set(pairs) & set(queue.pairs)),
        len(pairs),
    )
    return AnnotationQueue(pairs, RowCounts(rows_in=len(pairs), rows_out=len(pairs)))


def _labels(store: Store, digest: str, pairs: tuple[QueuedPair, ...]) -> PairLabels:
    """The labels of the answers.

    Raises Waiting if there are no answers and something is to be asked, InputError if there are
    some, and none is about a pair of the queue.
    """
    try:
        lines = store.read(_key(digest, "answers")).decode().splitlines()
    except NotFoundError:
        if pairs:
            raise _wait_for_answers(digest, len(pairs)) from None
        return label_pairs(pairs, ())
    found = label_pairs(pairs, [parse_answer(json.loads(line)) for line in lines])
    if not has_answered(found):
        raise InputError(
            f"annotate/{digest}: no answer of {len(lines)} is about one of the {len(pairs)} pairs "
            f"that people are asked about ({dict(found.row_counts.rejected)}); give the answers to "
            f"them: pvar queue answer {digest} ANSWERS"
        )
    return found


def _wait_for_answers(digest: str, num_pairs: int) -> Waiting:
    return Waiting(
        f"people's answers about {num_pairs} pairs",
        f"pvar queue fetch {digest} --out FOLDER, ask people, pvar queue answer {digest} ANSWERS, "
        "then run the same again",
    )


def _summarise(job: Job[AnnotateSpec], artifact: Artifact) -> Summary:
    pairs = queued_pairs(job.ports.store, job.keys.digest)
    return {"num_asked": len(pairs), "num_labels": len(artifact.rows(LABELS, Pair))}


ANNOTATE = Stage(
    name="annotate",
    description="Ask people about pairs of the selected prompts, and wait for their answers.",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
