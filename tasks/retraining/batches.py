"""The log of batches: the files of each batch, its runs, and their outcome.

    retrain/data/{digest}.jsonl.gz             rows of a batch, or its fresh pairs, written before
                                               its record
    retrain/batches/000001/batch.json          written once; its files are then used
    retrain/batches/000001/attempt-1.json      one per run, written before the run starts
    retrain/batches/000001/waiting.json        the run that waits, for a person or for data
    retrain/batches/000001/agreement.json      written once: what models say about its labels
    retrain/batches/000001/accepted.json       written once: a person accepts its labels
    retrain/batches/000001/outage.json         the last run met an outage: when to try again
    retrain/batches/000001/set-aside.json      too many runs failed, or a person rejects its labels
    retrain/batches/000001/retry.json          earlier attempts do not count any more
    retrain/batches/000001/done.json           written once: the run that succeeded

The numbers make this a log with one winner per entry. A run that adds a batch has read all earlier
batches and creates the next number only if it does not exist. If two runs add a batch at the same
time, one fails, reads the other's entry, and finds its files used. A run that dies before the entry
has used no files. A run that dies after the entry leaves an unfinished batch, which the next run
continues. So each file is in exactly one batch, and no second record per file can contradict this.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from pvar.digest import digest
from pvar.errors import DamagedError, InputError, NotFoundError
from pvar.fresh_pairs import FreshSplit
from pvar.incoming_rows import (
    BatchRows,
    SeenRows,
    batch_rows,
    id_of,
    parse_row,
    seen_labels,
    to_fields,
)
from pvar.ports import Store
from pvar.prompt_rows import annotator_of
from pvar.records import Prompt, Row
from pvar.replay import EarlierRow
from pvar.retrain_decision import Batch, Replayed
from pvar.unpaired_labels import UnpairedLabel
from tasks.retraining.exams import Exam
from tasks.retraining.incoming_files import GoodFile, RowReader

logger = logging.getLogger(__name__)

BATCHES = "retrain/batches"
LEASE = "retrain/leases"
"""Held by whoever retrains, or changes the data of batches."""


class RowFiles(NamedTuple):
    """Functions that read and write local files of rows."""

    read: RowReader
    write: Callable[[Path, Iterable[Mapping[str, object]]], int]


class Attempt(BaseModel):
    """A run of a batch. It is recorded before it starts, so a run that dies is recorded, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    started_at: AwareDatetime
    error: str | None = None
    """Why it failed. None while it runs, or if it was killed."""
    token: str = ""
    """A random name: numbers recur after an attempt that did not count. Empty in earlier records.
    """


class Success(BaseModel):
    """The successful run of a batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    finished_at: AwareDatetime
    run: str


class WaitingRun(BaseModel):
    """A waiting run of a batch. This run is resumed instead of starting a new one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: AwareDatetime
    run: str
    proposed: Exam | None = None
    """The exam to freeze when the run is measured on it. None if there is none, or it is frozen."""
    attempt: str = ""
    """Token of the attempt whose run waits."""


Record = TypeVar("Record", bound=BaseModel)


def read_batches(store: Store) -> list[Batch]:
    """All batches, oldest first."""
    keys = [info.key for info in store.list(f"{BATCHES}/")]
    return [read_record(store, key, Batch) for key in keys if key.endswith("/batch.json")]


def attempts_of(store: Store, batch: Batch) -> list[Attempt]:
    """The attempts of a batch, oldest first. If the batch is not done, none has succeeded."""
    keys = [info.key for info in store.list(f"{folder_of(batch.number)}/attempt-")]
    return sorted((read_record(store, key, Attempt) for key in keys), key=lambda each: each.number)


def add_batch(
    store: Store,
    good: Sequence[GoodFile],
    batches: Sequence[Batch],
    *,
    reasons: Sequence[str],
    now: datetime,
    row_files: RowFiles,
    scratch: Path,
    source_field: str | None = None,
    annotator_field: str | None = None,
    replay: Callable[[Sequence[Prompt]], Sequence[EarlierRow]] | None = None,
    withdrawn: Collection[str] = (),
    split_off: Callable[[BatchRows], FreshSplit] | None = None,
) -> Batch | None:
    """Make the next batch after `batches`.

    None if another run added one since they were read, or if no row can be used (labels whose
    counterpart has not arrived yet): the files then stay new.

    `good` are the files that are in no batch, with local copies. At least one of them must have new
    content. `source_field` is the field of a row that names its source (`ingest.source_field`). It
    is kept in the data, with the key of the file for rows without it. `annotator_field` is the
    field that names who labelled a row; it is kept, too, where there is one. `replay` gives the
    earlier rows that follow the new ones in the data. New rows with a prompt whose id is in
    `withdrawn` are left out. `split_off` takes the new rows that are not trained on out of the
    data, into an object of their own.
    """
    fresh, duplicates = split_duplicates(good, batches)
    annotators: dict[tuple[str, str], str] = {}
    rows = batch_rows(
        _noted(_rows(fresh, row_files.read, source_field), annotator_field, annotators), withdrawn
    )
    split = FreshSplit(rows, [], ()) if split_off is None else split_off(rows)
    rows = split.rows
    if not rows.prompts:
        logger.warning("no batch: none of the new rows can be used (%s)", rows.row_counts.rejected)
        return None
    replayed = replay(rows.prompts) if replay else ()
    prompts = [*rows.prompts, *(row.prompt for row in replayed)]
    fields = (
        to_fields(prompt, source_field) | _annotator(prompt, annotator_field, annotators)
        for prompt in prompts
    )
    content = _content(fresh, replayed, split, withdrawn)
    asked = [to_fields(prompt, source_field) for prompt in split.fresh]
    batch = Batch(
        number=len(batches) + 1,
        created_at=now,
        data=_write_data(store, content, fields, row_files, scratch),
        files=tuple(each.file for each in fresh),
        duplicates=tuple(each.file for each in duplicates),
        reasons=tuple(reasons),
        row_counts=rows.row_counts,
        num_labelled=rows.num_labelled,
        replayed=tuple(
            Replayed(batch=number, num_rows=count)
            for number, count in sorted(Counter(row.batch for row in replayed).items())
        ),
        fresh=_write_data(store, ["fresh", *content], asked, row_files, scratch) if asked else None,
    )
    key = f"{folder_of(batch.number)}/batch.json"
    return batch if store.create(key, to_json(batch)) else None


def _content(
    fresh: Iterable[GoodFile],
    replayed: Iterable[EarlierRow],
    split: FreshSplit,
    withdrawn: Collection[str],
) -> list[str]:
    """What decides the rows of a batch, for the name of its data."""
    content = [each.file.sha256 for each in fresh] + [row.prompt.prompt_id for row in replayed]
    if "withdrawn" in split.rows.row_counts.rejected:
        content.append(digest(sorted(withdrawn)))
    if split.left_out:
        content += ["without", *split.left_out]
    return content


def seen_rows(store: Store, batches: Iterable[Batch], read: RowReader, scratch: Path) -> SeenRows:
    """The rows of these batches. Data that is gone or damaged is left out, with a warning."""
    prompts, labels = set[str](), set[str]()
    for batch in batches:
        path = scratch / f"seen-{batch.data.rpartition('/')[2]}"
        try:
            store.download(batch.data, path)
            parsed = [parse_row(row, path.name) for row in read(path)]
        except (NotFoundError, InputError):
            logger.warning("%s/%s is gone or damaged: its rows count as new", store.uri, batch.data)
            continue
        finally:
            path.unlink(missing_ok=True)
        rows = [row for row in parsed if not isinstance(row, str)]
        prompts |= {id_of(row) for row in rows}
        labels |= seen_labels(rows)
    return SeenRows(prompts, labels)


def prompts_of_batches(
    store: Store, batches: Iterable[Batch], read: RowReader, scratch: Path
) -> set[str]:
    """Ids of all prompts in the data of these batches."""
    return set(seen_rows(store, batches, read, scratch).prompts)


def split_duplicates(
    good: Sequence[GoodFile], batches: Sequence[Batch]
) -> tuple[list[GoodFile], list[GoodFile]]:
    """Files with new content, and files whose content is the same as an earlier file's."""
    seen = {file.sha256 for batch in batches for file in batch.files}
    fresh: list[GoodFile] = []
    duplicates: list[GoodFile] = []
    for each in good:
        (duplicates if each.file.sha256 in seen else fresh).append(each)
        seen.add(each.file.sha256)
    return fresh, duplicates


def begin_attempt(store: Store, batch: Batch, now: datetime) -> Attempt:
    """Record that a run of the batch starts. It counts unless it succeeds or is deleted."""
    earlier = attempts_of(store, batch)
    number = earlier[-1].number + 1 if earlier else 1
    attempt = Attempt(number=number, started_at=now, token=uuid4().hex)
    store.write(_attempt_key(batch, attempt), to_json(attempt))
    return attempt


def record_failure(store: Store, batch: Batch, attempt: Attempt, error: str) -> None:
    """Record why a run failed."""
    if _is_own(store, batch, attempt):
        failed = attempt.model_copy(update={"error": error})
        store.write(_attempt_key(batch, attempt), to_json(failed))


def take_back(store: Store, batch: Batch, attempt: Attempt) -> None:
    """Delete the record of an attempt, so that it does not count."""
    if _is_own(store, batch, attempt):
        store.delete(_attempt_key(batch, attempt))


def _is_own(store: Store, batch: Batch, attempt: Attempt) -> bool:
    """Whether the record with the number of an attempt is still this attempt's.

    A retraining that was stopped for longer than its lease lives may have been followed by another.
    """
    try:
        return read_record(store, _attempt_key(batch, attempt), Attempt).token == attempt.token
    except NotFoundError:
        return False


def record_waiting_run(
    store: Store,
    batch: Batch,
    attempt: Attempt,
    run: str,
    now: datetime,
    *,
    proposed: Exam | None = None,
) -> None:
    """Record that a run waits. It does not count as an attempt, because it has not failed."""
    waiting = WaitingRun(since=now, run=run, proposed=proposed, attempt=attempt.token)
    store.write(_waiting_key(batch), to_json(waiting))
    take_back(store, batch, attempt)


def forget_waiting_run(store: Store, batch: Batch) -> None:
    """The waiting run, if there is one, is not resumed."""
    store.delete(_waiting_key(batch))


def record_success(store: Store, batch: Batch, run: str, now: datetime) -> None:
    """Record the successful run of the batch. The first record counts."""
    success = Success(finished_at=now, run=run)
    store.create(f"{folder_of(batch.number)}/done.json", to_json(success))
    forget_waiting_run(store, batch)


def _write_data(
    store: Store,
    content: Sequence[str],
    rows: Iterable[Mapping[str, object]],
    row_files: RowFiles,
    scratch: Path,
) -> str:
    """Write one object with the rows. The same content (digests of the files and of what is left
    out of them, ids of the replayed prompts) gives the same object."""
    name = f"{digest(list(content))}.jsonl.gz"
    row_files.write(scratch / name, rows)
    store.upload(scratch / name, f"retrain/data/{name}")
    return f"retrain/data/{name}"


def _rows(
    files: Iterable[GoodFile], read: RowReader, source_field: str | None
) -> Iterator[tuple[Row, Prompt | UnpairedLabel]]:
    for each in files:
        assert each.path is not None
        for row in read(each.path):
            parsed = parse_row(row, each.file.key, source_field)
            if isinstance(row, Row) and not isinstance(parsed, str):
                yield row, parsed


def _noted(
    rows: Iterable[tuple[Row, Prompt | UnpairedLabel]],
    field: str | None,
    annotators: dict[tuple[str, str], str],
) -> Iterator[Prompt | UnpairedLabel]:
    """The parsed rows; who labelled them is noted by prompt and chosen answer, the first counts."""
    for row, parsed in rows:
        annotator = annotator_of(row.fields, field)
        if annotator is not None:
            prompt = parsed.prompt if isinstance(parsed, UnpairedLabel) else parsed
            text = parsed.completion if isinstance(parsed, UnpairedLabel) else parsed.chosen
            annotators.setdefault((prompt.prompt_id, text or ""), annotator)
        yield parsed


def _annotator(
    prompt: Prompt, field: str | None, annotators: Mapping[tuple[str, str], str]
) -> dict[str, object]:
    """Who labelled the chosen answer, as a field of the row; empty if nobody is named."""
    annotator = annotators.get((prompt.prompt_id, prompt.chosen or ""))
    return {} if field is None or annotator is None else {field: annotator}


def _attempt_key(batch: Batch, attempt: Attempt) -> str:
    return f"{folder_of(batch.number)}/attempt-{attempt.number}.json"


def _waiting_key(batch: Batch) -> str:
    return f"{folder_of(batch.number)}/waiting.json"


def folder_of(number: int) -> str:
    """Folder of a batch's records."""
    return f"{BATCHES}/{number:06d}"


def to_json(document: BaseModel) -> bytes:
    """A record as it is stored."""
    return document.model_dump_json(indent=1).encode() + b"\n"


def read_record(
    store: Store,
    key: str,
    kind: type[Record],
    *,
    lost: str = "the files of this batch count as new",
) -> Record:
    """The record of that key. Raises DamagedError if it is not one of this kind; `lost` says what
    is wrong without it."""
    try:
        return kind.model_validate_json(store.read(key))
    except ValidationError as error:
        raise DamagedError(
            f"{store.uri}/{key} is not a valid {kind.__name__.lower()}: "
            f"{error.errors()[0]['msg']}; restore it from a backup, because otherwise {lost}"
        ) from error
