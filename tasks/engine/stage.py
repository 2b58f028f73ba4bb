"""A stage, and how it is brought to completion: look, claim, work, record, and the manifest last.

Any number of processes may run the same stage at once: each claims shards by lease, and each shard
is recorded once. The model (or whatever `open_worker` loads) is loaded when the first missing shard
is claimed, and then serves all shards of this process.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from pvar.accounts import Accounts
from pvar.artifacts import (
    FileRecord,
    Manifest,
    Recipe,
    ShardRecord,
    ShardSpec,
    Summary,
    total_accounts,
)
from pvar.config import RuntimeConfig
from pvar.errors import DamagedError, StageError
from pvar.number_format import NumberFormat
from pvar.ports import Ports, Store
from tasks.engine.artifact import (
    Artifact,
    ArtifactKeys,
    discard_shard,
    open_artifact,
    read_document,
    sha256_of,
)
from tasks.engine.gpu_memory import free_gpu_memory
from tasks.engine.lease import hold, try_acquire
from tasks.engine.progress_log import ProgressLog
from tasks.engine.stage_outcome import StageOutcome, Waiting, record_waiting
from tasks.engine.tables import num_rows

logger = logging.getLogger(__name__)

Spec = TypeVar("Spec", bound=BaseModel)
Work = Callable[[ShardSpec, Path], Accounts]
"""Makes one shard: writes its files into the folder and accounts for its rows."""

Image = Literal["cpu", "sample", "train"]
"""The images of docker/, by the packages that they hold."""

POLL_SECONDS = 1.0
"""Pause before looking again for a shard that somebody else is working on."""


@dataclass(frozen=True)
class Job(Generic[Spec]):
    """What a stage's functions are given."""

    spec: Spec
    """The identity part of the configuration."""
    runtime: RuntimeConfig
    inputs: Mapping[str, Artifact]
    ports: Ports
    keys: ArtifactKeys
    scratch: Path
    """A local folder of this artifact, for files that need not survive."""
    log_step: Callable[[int, Mapping[str, float]], None]
    """Reports figures while the work goes on (step, name → value)."""
    progress: ProgressLog = field(default_factory=lambda: ProgressLog("job"))
    """Reports how far the work is; `run_stage` starts one with the artifact's name."""
    number_format: NumberFormat | None = None
    """What models compute in: the recipe's record, once the artifact is begun."""


@dataclass(frozen=True)
class Stage(Generic[Spec]):
    """What a stage does; it knows neither Prefect nor S3."""

    name: str
    description: str
    """One sentence, for people."""
    version: int
    """Raised by hand when the meaning of the result changes: old artifacts are then not reused."""
    plan: Callable[[Job[Spec]], Sequence[ShardSpec]]
    """Cuts the work into shards."""
    open_worker: Callable[[Job[Spec]], AbstractContextManager[Work]]
    """Loads what the work needs."""
    summarise: Callable[[Job[Spec], Artifact], Summary]
    """The figures of the whole, from the complete shards.

    One that raises because the shards are worthless takes them back first (`discard_shards`): they
    are recorded once, and every later run would end with them.
    """
    image: Image = "cpu"
    """Which image its container runs: `cpu` has no packages that load models."""
    wants_gpu: bool = False
    """Whether its container gets a GPU where the pool has some."""
    unit: str = "rows"
    """Plural noun of what its shards are cut from, in reports of progress."""
    number_format: Callable[[Job[Spec]], NumberFormat | None] = lambda _: None
    """What a model will compute in, asked of whoever begins an artifact; None: no model does."""


def run_stage(stage: Stage[Any], recipe: Recipe, job: Job[Any]) -> StageOutcome:
    """Bring the artifact of `recipe` to completion and return it, or what it waits for.

    Raises whatever the stage raises; what was complete before stays complete.
    """
    began = time.monotonic()
    keys, store = job.keys, job.ports.store
    manifest = verified_manifest(store, keys, job.inputs)
    made = 0
    if manifest is None:
        with job.progress.nested(keys.root) as progress:
            job = replace(job, progress=progress)
            recipe = begin_artifact(stage, recipe, job)
            job = replace(job, number_format=recipe.number_format)
            _say_number_format(job)
            made, signal = _make_missing_shards(stage, recipe, job)
            free_gpu_memory()
            if signal is not None:
                waiting = record_waiting(store, keys, signal)
                return StageOutcome(waiting, made, time.monotonic() - began)
            progress.begin("computing the summary")
            manifest = _complete(stage, recipe, job)
    seconds = time.monotonic() - began
    rows = manifest.accounts
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
    """Log what models compute in, with a warning where this machine can only emulate it."""
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
    """The manifest if all its files are there in their size and its inputs are today's."""
    manifest = read_document(store, keys.manifest, Manifest)
    if manifest is None:
        return None
    if manifest.inputs != manifest_digests(inputs):
        store.delete(keys.manifest)
        return None
    sizes = {info.key: info.num_bytes for info in store.list(f"{keys.root}/shards/")}
    damaged = [
        shard.index
        for shard in manifest.shards
        if any(
            sizes.get(f"{keys.root}/{shard.folder}/{file.name}") != file.num_bytes
            for file in shard.files
        )
    ]
    for index in damaged:
        discard_shard(store, keys, index)
    return None if damaged else manifest


def manifest_digests(inputs: Mapping[str, Artifact]) -> dict[str, str]:
    """SHA-256 of each input's manifest: it changes when the content of any of its files does."""
    return {
        name: hashlib.sha256(artifact.manifest.to_json()).hexdigest()
        for name, artifact in inputs.items()
    }


def begin_artifact(stage: Stage[Any], recipe: Recipe, job: Job[Any]) -> Recipe:
    """Write the recipe with plan and number format, or take over the one that is there."""
    store = job.ports.store
    made_from = manifest_digests(job.inputs)
    existing = read_document(store, job.keys.recipe, Recipe)
    if existing is not None and existing.made_from != made_from:
        _discard_stale(store, existing, job)
        existing = None
    if existing is None:
        plan = tuple(stage.plan(job))
        record = {"shards": plan, "made_from": made_from, "number_format": stage.number_format(job)}
        planned = recipe.model_copy(update=record)
        if store.create(job.keys.recipe, planned.to_json()):
            return planned
        existing = read_document(store, job.keys.recipe, Recipe)
    if existing is None or existing.digest != job.keys.digest:
        raise DamagedError(
            f"{store.uri}/{job.keys.recipe} does not describe {job.keys.root}; delete that folder "
            "and run the stage again"
        )
    return existing


def _discard_stale(store: Store, recipe: Recipe, job: Job[Any]) -> None:
    """Remove an artifact, also a half-made one, whose inputs were made again with other content.

    Its shards, its plan and its checkpoints belong to the earlier inputs. Whoever still works on it
    holds a lease, and is waited for by being told so (LeaseError).
    """
    keys, today = job.keys, manifest_digests(job.inputs)
    changed = sorted(name for name in today if recipe.made_from.get(name) != today[name])
    logger.warning("%s: made from an earlier %s; making it again", keys.root, ", ".join(changed))
    with ExitStack() as held:
        for shard in recipe.shards:
            lease = hold(store, keys.lease(shard.index), ttl_seconds=job.runtime.lease_seconds)
            held.callback(lease.release)
        store.delete(keys.manifest)
        for key in [info.key for info in store.list(f"{keys.root}/")]:
            if key != keys.recipe and not key.startswith(f"{keys.root}/leases/"):
                store.delete(key)
        store.delete(keys.recipe)  # last: until then the next run comes here again


def _make_missing_shards(
    stage: Stage[Any], recipe: Recipe, job: Job[Any]
) -> tuple[int, Waiting | None]:
    """Claim and make shards until all have a record; returns how many were made here.

    A shard that waits is left alone; what the first of them waits for is returned as well, when all
    others have a record.
    """
    made, waiting = 0, dict[int, Waiting]()
    missing = _missing(job, recipe.shards)
    _begin_counting(stage, recipe, missing, job)
    with ExitStack() as stack:
        work: Work | None = None
        while missing:
            claimed_any = False
            for shard in missing:
                lease = try_acquire(
                    job.ports.store,
                    job.keys.lease(shard.index),
                    ttl_seconds=job.runtime.lease_seconds,
                )
                if lease is None:
                    continue
                with lease:
                    claimed_any = True
                    if _is_recorded(job, shard):  # finished between the look and the claim
                        continue
                    if work is None:
                        job.progress.begin("loading")
                        work = stack.enter_context(stage.open_worker(job))
                        _begin_counting(stage, recipe, missing, job)
                    try:
                        _make_shard(job, recipe, shard, work)
                    except Waiting as signal:
                        waiting[shard.index] = signal
                    else:
                        made += 1
            if not claimed_any:
                num = f"{len(missing)} of {len(recipe.shards)}"
                job.progress.say(f"waiting for other workers' shards ({num})")
                time.sleep(POLL_SECONDS)
            missing = [shard for shard in _missing(job, missing) if shard.index not in waiting]
            job.progress.reach(_num_rows(recipe.shards) - _num_rows(missing))
    return made, next(iter(waiting.values()), None)


def _missing(job: Job[Any], shards: Sequence[ShardSpec]) -> list[ShardSpec]:
    return [shard for shard in shards if not _is_recorded(job, shard)]


def _begin_counting(
    stage: Stage[Any], recipe: Recipe, missing: Sequence[ShardSpec], job: Job[Any]
) -> None:
    """Count complete rows; a stage that is not cut into shards of rows begins its own counts."""
    if total := _num_rows(recipe.shards):
        done = total - _num_rows(missing)
        job.progress.begin(total=total, unit=stage.unit, done=done)
    else:
        job.progress.begin("working")


def _num_rows(shards: Sequence[ShardSpec]) -> int:
    return sum(shard.stop - shard.start for shard in shards)


def _is_recorded(job: Job[Any], shard: ShardSpec) -> bool:
    store, keys = job.ports.store, job.keys
    record = read_document(store, keys.record(shard.index), ShardRecord)
    if record is None:
        return False
    folder = f"{keys.root}/{record.folder}/"
    sizes = {info.key: info.num_bytes for info in store.list(folder)}
    if all(sizes.get(f"{folder}{file.name}") == file.num_bytes for file in record.files):
        return True
    discard_shard(store, keys, shard.index)
    return False


def _make_shard(job: Job[Any], recipe: Recipe, shard: ShardSpec, work: Work) -> None:
    began = time.monotonic()
    if shard.stop > shard.start:
        job.progress.say("")  # it may have waited for others before
    local = job.scratch / "shards" / shard.name
    local.mkdir(parents=True, exist_ok=True)
    for leftover in sorted(local.rglob("*"), reverse=True):
        leftover.unlink() if leftover.is_file() else leftover.rmdir()
    accounts = work(shard, local)
    record = _upload(job, shard, local, accounts)
    if read_document(job.ports.store, job.keys.recipe, Recipe) != recipe:
        raise StageError(
            f"{job.keys.root}: its inputs were made again while shard {shard.index} was made from "
            "the earlier ones; run the stage again"
        )
    job.ports.store.create(job.keys.record(shard.index), record.to_json())
    job.progress.advance(shard.stop - shard.start)
    logger.info(
        "%s: shard %d of rows %d–%d: %d rows out in %.1f s",
        job.keys.root,
        shard.index,
        shard.start,
        shard.stop,
        accounts.rows_out,
        time.monotonic() - began,
    )


def _upload(job: Job[Any], shard: ShardSpec, local: Path, accounts: Accounts) -> ShardRecord:
    paths = sorted(path for path in local.rglob("*") if path.is_file())
    files = tuple(
        FileRecord(
            name=path.relative_to(local).as_posix(),
            num_bytes=path.stat().st_size,
            sha256=sha256_of(path),
            rows=num_rows(path) if path.suffix == ".parquet" else None,
        )
        for path in paths
    )
    content = hashlib.sha256("".join(f"{file.name} {file.sha256}\n" for file in files).encode())
    folder = f"shards/{shard.name}-{content.hexdigest()[:12]}"
    for path, file in zip(paths, files, strict=True):
        job.ports.store.upload(path, f"{job.keys.root}/{folder}/{file.name}")
    return ShardRecord(index=shard.index, folder=folder, files=files, accounts=accounts)


def _complete(stage: Stage[Any], recipe: Recipe, job: Job[Any]) -> Manifest:
    """Write the manifest from the records; whoever comes second finds the same one."""
    store, keys = job.ports.store, job.keys
    records: dict[int, ShardRecord] = {}
    for shard in recipe.shards:
        record = read_document(store, keys.record(shard.index), ShardRecord)
        if record is None:
            raise StageError(f"{keys.root}: shard {shard.index} vanished; run the stage again")
        records[shard.index] = record
    manifest = Manifest(
        stage=recipe.stage,
        version=recipe.version,
        digest=keys.digest,
        inputs=recipe.made_from,
        shards=tuple(records.values()),
        accounts=total_accounts(records),
        summary={},
    )
    summary = dict(stage.summarise(job, Artifact(store, keys, manifest, _cache(job))))
    if recipe.number_format is not None:
        summary["number_format"] = recipe.number_format
    manifest = manifest.model_copy(update={"summary": summary})
    store.create(keys.manifest, manifest.to_json())
    store.delete(keys.waiting)
    return manifest


def discard_shards(artifact: Artifact) -> None:
    """Take back all shards, which hold nothing to keep, so that the next run makes them anew."""
    for shard in artifact.manifest.shards:
        discard_shard(artifact.store, artifact.keys, shard.index)


def _cache(job: Job[Any]) -> Path:
    return job.scratch / "read"
