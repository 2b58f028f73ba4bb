"""Erasing: remove the rows of withdrawn prompts from everything in the store.

`plan_erasure` looks and changes nothing; `carry_out_erasure` removes. No retraining and no stage
may run meanwhile. What is removed is recorded before the first removal, so that a killed erasure is
taken up by the next one, in this order: verdicts (whose keys follow from texts of the tables),
anchors and queues, artifacts, data of batches and exams, reports.
"""

import html
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from flows.round_record import FOLDER as ROUNDS
from flows.run_record import load_run
from flows.run_report import write_report
from flows.wiring import Wiring
from infra.row_files import ROW_FILES, read_rows, write_rows
from pvar.errors import ArtifactError, IncompleteError, InputError, LeaseError, TrackingError
from pvar.labelled_pairs import is_labelled
from pvar.ports import Store
from pvar.records import Prompt, Row
from pvar.retrain_decision import RetrainConfig
from pvar.withdrawal import ids_of_row
from tasks.engine.artifact import Artifact, ArtifactKeys, open_artifact
from tasks.engine.erasure import (
    ErasedTable,
    clean_up,
    erase_rows,
    has_leftovers,
    held_leases,
    holds_rows,
    passages_to_erase,
    rows_to_erase,
)
from tasks.engine.garbage import delete_artifact
from tasks.engine.lease import LeaseWatch, hold, is_held
from tasks.engine.work_folders import work_folder
from tasks.graph import CACHES, STAGES
from tasks.retraining.batches import LEASE, RowFiles, read_batches
from tasks.retraining.erased_data import erase_data, rows_of_data
from tasks.retraining.erasures import Erasure, read_erasures, save_erasure
from tasks.retraining.incoming_files import QUARANTINE
from tasks.retraining.withdrawals import withdrawn_ids
from tasks.stages.exam_questions import QUESTIONS
from tasks.stages.ingest import INGEST, PROMPTS
from tasks.stages.pair import PAIR
from tasks.stages.verdict_erasure import (
    anchors_of,
    erase_anchors,
    erase_queued,
    queued_of,
    verdicts_of,
)

logger = logging.getLogger(__name__)

MIN_QUOTE_CHARACTERS = 20
"""Shorter prompts are not looked for in records that may quote: they would be found by chance."""

_NAMED = re.compile(r"[a-z]+/[0-9a-f]{16}")
_QUOTING = ("runs/", f"{ROUNDS}/", "comparisons/", "benchmarks/", "retrain/batches/")
_ROW_FILES = RowFiles(read_rows, write_rows)


@dataclass(frozen=True)
class ErasurePlan:
    """What an erasure removes."""

    erasure: Erasure
    """Its record, joined with that of an erasure that was killed."""
    artifacts: "_Artifacts"
    verdicts: list[str]
    data: dict[str, int]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        erasure = self.erasure
        found = (erasure.tables, erasure.deleted, erasure.objects, erasure.runs)
        return not any(found) and not erasure.num_verdicts


@dataclass
class _Artifacts:
    """What artifacts hold of the prompts."""

    tables: dict[ArtifactKeys, list[ErasedTable]] = field(default_factory=dict)
    incomplete: list[ArtifactKeys] = field(default_factory=list)
    leftovers: list[ArtifactKeys] = field(default_factory=list)
    """Complete artifacts with files that their manifest does not name."""
    prompts: dict[str, Prompt] = field(default_factory=dict)
    texts: dict[str, set[str]] = field(default_factory=dict)
    """Texts of the rows of a prompt, by its id."""
    pairs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids in artifacts with pairs, and those with a label in artifacts of `ingest`."""


def plan_erasure(wiring: Wiring, now: datetime) -> ErasurePlan:
    """What is to be removed for all withdrawn prompts. Reads every table of the store.

    Raises LeaseError if a retraining or a stage runs now, and DamagedError for a damaged table.
    """
    if is_held(wiring.store, LEASE):
        raise LeaseError(f"{wiring.store.uri}: a retraining runs; wait for it, and run this again")
    with work_folder(wiring.settings.home, "erase") as scratch:
        return _plan(wiring.store, now, scratch)


def carry_out_erasure(wiring: Wiring, now: datetime) -> Erasure | None:
    """Remove everything that a new plan finds, and return the record; None if there is nothing.

    Raises LeaseError if a retraining or a stage runs.
    """
    store = wiring.store
    with hold(store, LEASE), work_folder(wiring.settings.home, "erase") as scratch:
        plan = _plan(store, now, scratch)
        if plan.is_empty:
            return None
        save_erasure(store, plan.erasure)
        for key in plan.verdicts:
            store.delete(key)
        erase_anchors(store, plan.erasure.prompt_ids)
        erase_queued(store, plan.erasure.prompt_ids)
        _erase_artifacts(store, plan, now, scratch)
        erase_data(store, plan.data.keys(), plan.erasure.prompt_ids, _ROW_FILES, scratch)
        for run in plan.erasure.runs:
            _report_again(run, wiring)
        erasure = plan.erasure.model_copy(update={"finished_at": datetime.now(UTC)})
        save_erasure(store, erasure)
    return erasure


def _plan(store: Store, now: datetime, scratch: Path) -> ErasurePlan:
    folders = (*STAGES, *CACHES, ROUNDS)
    if busy := held_leases(store, folders):
        raise LeaseError(
            f"{store.uri}: a process works on {busy[0].partition('/leases')[0]} (leases held: "
            f"{len(busy)}); wait for it or end it, and run this again"
        )
    ids = withdrawn_ids(store)
    found = _look_through(store, ids, scratch)
    data = rows_of_data(store, ids, _ROW_FILES, scratch)
    verdicts = verdicts_of(store, found.prompts.values(), found.texts)
    runs = _runs_with(store, {keys.root for keys in found.tables})
    earlier = read_erasures(store)
    erasure = Erasure(
        number=len(earlier) + 1,
        begun_at=now,
        prompt_ids=tuple(sorted(ids)),
        tables={
            keys.root: sum(each.num_rows for each in tables)
            for keys, tables in found.tables.items()
        },
        deleted=tuple(keys.root for keys in found.incomplete),
        pairs=found.pairs,
        objects={**data, **anchors_of(store, ids), **queued_of(store, ids)},
        num_verdicts=len(verdicts),
        runs=tuple(runs),
        kept=(
            *_user_files(store, ids, scratch),
            *_quoting(store, found.prompts.values(), {f"runs/{run}.html" for run in runs}),
        ),
    )
    if earlier and earlier[-1].finished_at is None:
        erasure = earlier[-1].joined_with(erasure)
    return ErasurePlan(erasure, found, verdicts, data)


def _look_through(store: Store, ids: Collection[str], scratch: Path) -> _Artifacts:
    found = _Artifacts()
    for stage in (*STAGES, *CACHES):
        for digest in sorted({info.key.split("/")[1] for info in store.list(f"{stage}/")}):
            keys = ArtifactKeys(stage, digest)
            try:
                artifact = open_artifact(store, stage, digest, scratch)
            except IncompleteError:
                if holds_rows(store, keys, ids, scratch / "table"):
                    found.incomplete.append(keys)
                continue
            if has_leftovers(store, keys, artifact.manifest):
                found.leftovers.append(keys)
            if tables := rows_to_erase(artifact, ids):
                found.tables[keys] = tables
                _note_texts(artifact, tables, ids, found)
            shutil.rmtree(scratch / keys.root, ignore_errors=True)  # a store may be larger
    return found


def _note_texts(
    artifact: Artifact, tables: Collection[ErasedTable], ids: Collection[str], found: _Artifacts
) -> None:
    prompts = set[str]()
    for passage in passages_to_erase(artifact, tables, ids):
        found.texts.setdefault(passage.prompt_id, set()).add(passage.text)
        prompts.add(passage.prompt_id)
    if artifact.keys.stage == PAIR.name:
        found.pairs[artifact.keys.root] = tuple(sorted(prompts))
    if artifact.keys.stage in (INGEST.name, QUESTIONS.name):
        rows = [row for row in artifact.rows(PROMPTS, Prompt) if row.prompt_id in ids]
        found.prompts |= {row.prompt_id: row for row in rows}
        labelled = sorted(row.prompt_id for row in rows if is_labelled(row))
        if labelled and artifact.keys.stage == INGEST.name:
            found.pairs[artifact.keys.root] = tuple(labelled)


def _erase_artifacts(store: Store, plan: ErasurePlan, now: datetime, scratch: Path) -> None:
    found, watch = plan.artifacts, LeaseWatch()
    for keys, tables in found.tables.items():
        artifact = open_artifact(store, keys.stage, keys.digest, scratch)
        erase_rows(artifact, tables, plan.erasure.prompt_ids, scratch / "put")
        shutil.rmtree(scratch / keys.root, ignore_errors=True)
    for keys in found.leftovers:
        clean_up(store, keys, open_artifact(store, keys.stage, keys.digest, scratch).manifest)
    for root in plan.erasure.deleted:  # those of an erasure that was killed, too
        is_complete = any(True for _ in store.list(f"{root}/manifest.json"))
        if not is_complete and not delete_artifact(store, root, watch):
            raise LeaseError(f"{root} is being made; wait for it, and run this again")


def _runs_with(store: Store, roots: Set[str]) -> list[str]:
    """Names of the runs whose records name one of these artifacts, readable or not."""
    keys = [info.key for info in store.list("runs/") if info.key.endswith(".json")]
    return [
        key.removeprefix("runs/").removesuffix(".json")
        for key in keys
        if not roots.isdisjoint(_NAMED.findall(store.read(key).decode()))
    ]


def _report_again(run: str, wiring: Wiring) -> None:
    """Make the report of a run again, in the store and in MLflow; delete it if that is not possible
    any more."""
    try:
        record = load_run(wiring.store, run)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.html"
            write_report(record, wiring, report)
            wiring.store.upload(report, f"runs/{run}.html")
            try:
                wiring.tracking.log_file(record.mlflow_run, report)
            except TrackingError as error:  # its copy is gone with the run
                logger.warning("run %s: %s", run, error)
    except (ArtifactError, InputError, ValidationError) as error:
        wiring.store.delete(f"runs/{run}.html")
        logger.warning("run %s: its report was deleted and cannot be made again: %s", run, error)


def _user_files(store: Store, ids: Collection[str], scratch: Path) -> list[str]:
    """Incoming and quarantined files with such rows. They are the user's."""
    folders = {RetrainConfig().incoming, QUARANTINE} | {
        file.key.rpartition("/")[0]
        for batch in read_batches(store)
        for file in (*batch.files, *batch.duplicates)
    }
    keys = {info.key for folder in folders for info in store.list(f"{folder}/")}
    found = []
    for key in sorted(key for key in keys if key.endswith(ROW_FILES)):
        path = scratch / f"file-{key.rpartition('/')[2][-60:]}"
        store.download(key, path)
        with suppress(InputError):  # what cannot be read is in quarantine, or will be
            if any(
                isinstance(row, Row) and not ids_of_row(row.fields).isdisjoint(ids)
                for row in read_rows(path)
            ):
                found.append(key)
        path.unlink()
    return found


def _quoting(store: Store, prompts: Iterable[Prompt], made_again: Collection[str]) -> list[str]:
    """Records and pages that quote one of these prompts and are not made again."""
    texts = [
        message.content
        for prompt in prompts
        for message in prompt.messages
        if message.role == "user" and len(message.content) >= MIN_QUOTE_CHARACTERS
    ]
    forms = {
        form.encode()
        for text in texts
        for form in (
            text,
            html.escape(text),
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            repr(text)[1:-1],
        )
    }
    keys = [info.key for folder in _QUOTING for info in store.list(folder)]
    return [
        key
        for key in keys
        if forms and key not in made_again and any(form in store.read(key) for form in forms)
    ]
