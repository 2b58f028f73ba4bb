"""A stage, and how it is run: find missing shards, lease, make and record them, write the manifest.

Any number of processes may run the same stage at once: they claim shards by lease, and each shard
is recorded once. The model (or whatever `open_worker` loads) is loaded when the first missing shard
is claimed, and then used for all shards of this process.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from pvar.artifacts import (
    Manifest,
    Recipe,
    ShardRecord,
    ShardSpec,
    Summary,
    total_row_counts,
)
from pvar.errors import DamagedError, StageError
from pvar.number_format import NumberFormat
from pvar.ports import Ports, Store
from pvar.references import Pinned, find_references, is_pinned
from pvar.row_counts import RowCounts
from pvar.runtime_config import RuntimeConfig
from tasks.engine.artifact import (
    Artifact,
    ArtifactKeys,
    discard_shard,
    open_artifact,
    read_document,
)
from tasks.engine.gpu_memory import free_gpu_memory
from tasks.engine.lease import LeaseWatch, try_acquire
from tasks.engine.progress_log import ProgressLog
from tasks.engine.shard_files import upload_shard
from tasks.engine.shard_records import is_intact, is_recorded, missing_shards, sizes_of
from tasks.engine.stage_outcome import StageOutcome, Waiting, record_waiting
from tasks.engine.stale_artifact import MADE_AGAIN, discard_stale, manifest_digests, put_manifest

logger = logging.getLogger(__name__)

Spec = TypeVar("Spec", bound=BaseModel)
Work = Callable[[ShardSpec, Path], RowCounts]
"""Makes one shard: writes its files into the folder and returns its row counts."""

Image = Literal["cpu", "sample", "train"]
"""The images of docker/, by their packages."""

POLL_SECONDS = 1.0
"""Pause before checking again for a shard that another process is working on."""


@dataclass(frozen=True)
class Job(Generic[Spec]):
    """The arguments of a stage's functions."""

    spec: Spec
    """The identity part of the configuration."""
    runtime: RuntimeConfig
    inputs: Mapping[str, Artifact]
    ports: Ports
    keys: ArtifactKeys
    scratch: Path
    """A local folder of this artifact for temporary files."""
    log_step: Callable[[int, Mapping[str, float]], None]
    """Reports metrics during the work (step, name → value)."""
    progress: ProgressLog = field(default_factory=lambda: ProgressLog("job"))
    """Reports progress; `run_stage` starts it with the artifact's name."""
    number_format: NumberFormat | None = None
    """Number format of the models, from the recipe once the artifact is begun."""
    plan: str = ""
    """`Recipe.plan_digest`, once the artifact is begun."""


@dataclass(frozen=True)
class Stage(Generic[Spec]):
    """The definition of a stage. It does not depend on Prefect or S3."""

    name: str
    description: str
    """One sentence, for display."""
    version: int
    """Increased by hand when the meaning of the result changes, so that old artifacts are not
    reused."""
    plan: Callable[[Job[Spec]], Sequence[ShardSpec]]
    """Splits the work into shards."""
    open_worker: Callable[[Job[Spec]], AbstractContextManager[Work]]
    """Loads what the work needs."""
    summarise: Callable[[Job[Spec], Artifact], Summary]
    """Computes the summary of the complete shards.

    If it raises because the shards are unusable, it discards them first (`discard_shards`).
    Otherwise every later run would fail with the same shards.
    """
    image: Image = "cpu"
    """Image of its container: `cpu` has no packages that load models."""
    wants_gpu: bool = False
    """Whether its container gets a GPU if the pool has any."""
    unit: str = "rows"
    """Plural noun of its units of work, in progress reports."""
    number_format: Callable[[Job[Spec]], NumberFormat | None] = lambda _: None
    """Resolves the number format when an artifact is begun; None if the stage runs no model."""


def run_stage(stage: Stage[Any], recipe: Recipe, job: Job[Any]) -> StageOutcome:
    """Complete the artifact of `recipe` and return it, or what it waits for.

    Raises whatever the stage raises. Complete shards are kept.
    """
    began = time.monotonic()
    keys, store = job.keys, job.ports.store
    manifest = verified_manifest(store, keys, job.inputs)
    made = 0
    if manifest is None:
        with job.progress.nested(keys.root) as progress:
            job = replace(job, progress=progress)
            recipe = begin_artifact(stage, recipe, job)
            job = replace(job, number_format=recipe.number_format, plan=recipe.plan_digest)
            _say_number_format(job)
            records = dict[int, ShardRecord]()
            made, signal = _make_missing_shards(stage, recipe, job, records)
            free_gpu_memory()
            if signal is not None:
                waiting = record_waiting(store, keys, signal)
                return StageOutcome(waiting, made, time.monotonic() - began)
            progress.begin("computing the summary")
            manifest = _complete(stage, recipe, job, records)
    seconds = time.monotonic() - began
    rows = manifest.row_counts
    logger.info(
        "%s: %s in %.1f s (%d shards made, %d rows in, %d out, rejected %s)",
        keys.root,
        "reused" if made == 0 else "made",
        seconds,
        made,
        rows.rows_in,
        rows.rows_out,
        dict(rows.rejected) or "none",
    )
    return StageOutcome(open_artifact(store, keys.stage, keys.digest, _cache(job)), made, seconds)


def _say_number_format(job: Job[Any]) -> None:
    """Log the number format, with a warning if this machine can only emulate it."""
    recorded = job.number_format
    if recorded is None:
        return
    logger.info("%s: models compute in %s", job.keys.root, recorded)
    if recorded == "float32":
        return
    native = job.ports.number_format("auto", learns=False)
    if native not in (recorded, "bfloat16"):  # what computes bfloat16 computes float16 too
        logger.warning(
            "%s: %s is on record for this artifact, and this machine emulates it, several times "
            "slower than %s; a machine that computes it natively can go on with the artifact",
            job.keys.root,
            recorded,
            native,
        )


def verified_manifest(
    store: Store, keys: ArtifactKeys, inputs: Mapping[str, Artifact]
) -> Manifest | None:
    """The manifest, if all its files exist with their sizes and its inputs are current."""
    manifest = read_document(store, keys.manifest, Manifest)
    if manifest is None or manifest.inputs != manifest_digests(inputs):
        return None  # `begin_artifact` discards what was made from other inputs
    sizes = sizes_of(store, keys)
    damaged = [shard.index for shard in manifest.shards if not is_intact(keys, shard, sizes)]
    for index in damaged:
        discard_shard(store, keys, index)
    return None if damaged else manifest


def begin_artifact(stage: Stage[Any], recipe: Recipe, job: Job[Any]) -> Recipe:
    """Write the recipe with plan and number format, or use the existing one."""
    store = job.ports.store
    made_from = manifest_digests(job.inputs)
    existing = read_document(store, job.keys.recipe, Recipe)
    if existing is not None and existing.made_from != made_from:
        discard_stale(store, job.keys, existing, job.inputs, ttl_seconds=job.runtime.lease_seconds)
        existing = read_document(store, job.keys.recipe, Recipe)
    if existing is None:
        plan = tuple(stage.plan(job))
        record = {"shards": plan, "made_from": made_from, "number_format": stage.number_format(job)}
        planned = recipe.model_copy(update=record)
        if store.create(job.keys.recipe, planned.to_json()):
            return planned
        existing = read_document(store, job.keys.recipe, Recipe)
    if existing is not None and existing.made_from != made_from:
        raise StageError(f"{job.keys.root}: {MADE_AGAIN}; run the stage again")
    if existing is None or existing.digest != job.keys.digest:
        raise DamagedError(
            f"{store.uri}/{job.keys.recipe} is not the recipe of {job.keys.root}; delete that "
            "folder and run the stage again"
        )
    return existing


def _make_missing_shards(
    stage: Stage[Any], recipe: Recipe, job: Job[Any], records: dict[int, ShardRecord]
) -> tuple[int, Waiting | None]:
    """Claim and make shards until all have a record; returns how many were made here.

    A shard that waits is left alone; what the first of them waits for is returned as well, when all
    others have a record. Adds the records that are in the store to `records`.
    """
    store, keys = job.ports.store, job.keys
    made, waiting, watch = 0, dict[int, Waiting](), LeaseWatch()
    missing = missing_shards(store, keys, job.plan, recipe.shards, records)
    _begin_counting(stage, recipe, missing, job, records)
    with ExitStack() as stack:
        work: Work | None = None
        while missing:
            claimed = set[int]()
            listing = watch.survey(store, f"{keys.root}/leases/")
            for shard in missing:
                lease = try_acquire(
                    store,
                    keys.lease(shard.index),
                    ttl_seconds=job.runtime.lease_seconds,
                    watch=watch,
                    listing=listing,
                )
                if lease is None:
                    continue
                with lease:
                    claimed.add(shard.index)
                    if is_recorded(store, keys, job.plan, shard, records):
                        continue  # it was finished between look and claim
                    if work is None:
                        job.progress.begin("loading")
                        work = stack.enter_context(stage.open_worker(job))
                        _begin_counting(stage, recipe, missing, job, records)
                    try:
                        _make_shard(job, recipe, shard, work, records)
                    except Waiting as signal:
                        waiting[shard.index] = signal
                    else:
                        made += 1
            missing = [shard for shard in missing if shard.index not in claimed]
            if missing and not claimed:
                num = f"{len(missing)} of {len(recipe.shards)}"
                job.progress.say(f"waiting for other workers' shards ({num})")
                time.sleep(POLL_SECONDS)
            missing = missing_shards(store, keys, job.plan, missing, records)
            job.progress.reach(_num_rows(recipe.shards) - _num_rows(missing))
            job.progress.count_shards(len(records), len(recipe.shards))
    return made, next(iter(waiting.values()), None)


def _begin_counting(
    stage: Stage[Any],
    recipe: Recipe,
    missing: Sequence[ShardSpec],
    job: Job[Any],
    records: Mapping[int, ShardRecord],
) -> None:
    """Count complete rows. A stage without shards of rows starts its own counts."""
    if total := _num_rows(recipe.shards):
        done = total - _num_rows(missing)
        job.progress.begin(total=total, unit=stage.unit, done=done)
        job.progress.count_shards(len(records), len(recipe.shards))
    else:
        job.progress.begin("working")


def _num_rows(shards: Sequence[ShardSpec]) -> int:
    return sum(shard.stop - shard.start for shard in shards)


def _make_shard(
    job: Job[Any],
    recipe: Recipe,
    shard: ShardSpec,
    work: Work,
    records: dict[int, ShardRecord],
) -> None:
    began = time.monotonic()
    if shard.stop > shard.start:
        job.progress.say("")  # it may have waited for others before
    local = job.scratch / "shards" / shard.name
    local.mkdir(parents=True, exist_ok=True)
    for leftover in sorted(local.rglob("*"), reverse=True):
        leftover.unlink() if leftover.is_file() else leftover.rmdir()
    row_counts = work(shard, local)
    _refuse_replaced_models(job)
    uploaded = upload_shard(job.ports.store, job.keys, shard.index, local, row_counts)
    record = uploaded.model_copy(update={"plan": job.plan})
    if read_document(job.ports.store, job.keys.recipe, Recipe) != recipe:
        raise StageError(
            f"{job.keys.root}: its inputs were made again while shard {shard.index} was made from "
            "the earlier ones; run the stage again"
        )
    if job.ports.store.create(job.keys.record(shard.index), record.to_json()):
        records[shard.index] = record
    job.progress.advance(shard.stop - shard.start)
    job.progress.count_shards(len(records), len(recipe.shards))
    logger.info(
        "%s: shard %d of rows %d–%d: %d rows out in %.1f s",
        job.keys.root,
        shard.index,
        shard.start,
        shard.stop,
        row_counts.rows_out,
        time.monotonic() - began,
    )


def _refuse_replaced_models(job: Job[Any]) -> None:
    """Raise ModelError if the folder of a model changed while the stage worked with it.

    It is verified before it is loaded; loading takes a while, and some engines load more than once.
    """
    if job.number_format is None:  # the stage runs no model
        return
    for reference in find_references(job.spec):
        if reference.kind == "model" and is_pinned(reference.text):
            location = Pinned.parse(reference.text).location
            if location.startswith("/") and Path(location).is_dir():
                job.ports.model_folder(reference.text)


def _complete(
    stage: Stage[Any], recipe: Recipe, job: Job[Any], known: Mapping[int, ShardRecord]
) -> Manifest:
    """Write the manifest from the records, unless another process writes the same one.

    `known` are records that were in the store; others are read. The first shard's lease is held:
    only one process computes the summary, and none discards the shards meanwhile.
    """
    store, keys, watch = job.ports.store, job.keys, LeaseWatch()
    while True:
        manifest = read_document(store, keys.manifest, Manifest)
        if manifest is not None and manifest.inputs == recipe.made_from:
            return manifest
        ttl_seconds = job.runtime.lease_seconds
        lease = try_acquire(store, keys.lease(0), ttl_seconds=ttl_seconds, watch=watch)
        if lease is not None:
            with lease:
                return _write_manifest(stage, recipe, job, known)
        job.progress.say("waiting for another worker's summary")
        time.sleep(POLL_SECONDS)


def _write_manifest(
    stage: Stage[Any], recipe: Recipe, job: Job[Any], known: Mapping[int, ShardRecord]
) -> Manifest:
    store, keys = job.ports.store, job.keys
    records: dict[int, ShardRecord] = {}
    listed = sizes_of(store, keys)
    for shard in recipe.shards:
        key, record = keys.record(shard.index), known.get(shard.index)
        if record is None or key not in listed or not is_intact(keys, record, listed):
            record = read_document(store, key, ShardRecord)
        if record is None or not record.is_of(job.plan):
            raise StageError(f"{keys.root}: shard {shard.index} is missing; run the stage again")
        records[shard.index] = record
    manifest = Manifest(
        stage=recipe.stage,
        version=recipe.version,
        digest=keys.digest,
        inputs=recipe.made_from,
        shards=tuple(records.values()),
        row_counts=total_row_counts(records),
        summary={},
    )
    summary = dict(stage.summarise(job, Artifact(store, keys, manifest, _cache(job))))
    if recipe.number_format is not None:
        summary["number_format"] = recipe.number_format
    manifest = manifest.model_copy(update={"summary": summary})
    put_manifest(store, keys, recipe, manifest)
    store.delete(keys.waiting)
    return manifest


def discard_shards(artifact: Artifact) -> None:
    """Discard all shards, so that the next run makes them again."""
    for shard in artifact.manifest.shards:
        discard_shard(artifact.store, artifact.keys, shard.index)


def _cache(job: Job[Any]) -> Path:
    return job.scratch / "read"
