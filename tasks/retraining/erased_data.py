"""Erase rows from the data of batches and exams.

The new data are put under another key, then the record names them, and last the earlier data are
deleted. So after a kill the record names data that exist, and what no record names is deleted by
the next erasure. An erased row leaves a row without a prompt, which every reader leaves out: so the
rows after it keep their places, and the figures of the batch stay those with which it was made.
"""

import logging
from collections.abc import Collection
from pathlib import Path

from pvar.digest import digest
from pvar.exam import exam_digest, num_judged
from pvar.incoming_rows import parse_row
from pvar.ports import Store
from pvar.records import Prompt, Row
from pvar.withdrawal import ids_of_row
from tasks.engine.artifact import read_document
from tasks.retraining.batches import RowFiles, folder_of, read_batches, to_json
from tasks.retraining.exams import EXAMS, Exam

logger = logging.getLogger(__name__)

DATA = ("retrain/data/", f"{EXAMS}/", "retrain/labels/")
"""Folders of the data; exams have their records there, too. No record names labels of earlier
batches, which a run reads: they are deleted, and another run has other ones."""

_ERASED = {"erased": True}


def rows_of_data(
    store: Store, prompt_ids: Collection[str], row_files: RowFiles, scratch: Path
) -> dict[str, int]:
    """Number of rows of these prompts in the data of all batches and exams, by key."""
    found = {}
    for key in [info.key for folder in DATA for info in store.list(folder)]:
        if key.endswith(".json"):
            continue
        path = scratch / key.rpartition("/")[2]
        store.download(key, path)
        num = sum(_is_of(row, prompt_ids) for row in row_files.read(path))
        path.unlink()
        if num:
            found[key] = num
    return found


def erase_data(
    store: Store,
    keys: Collection[str],
    prompt_ids: Collection[str],
    row_files: RowFiles,
    scratch: Path,
) -> None:
    """Erase these prompts from the data with these keys. The lease on retraining is held."""
    for batch in read_batches(store):
        objects = {"data": batch.data, "fresh": batch.fresh}
        held = {name: each for name, each in objects.items() if each is not None and each in keys}
        if held:
            update = {
                name: _put(
                    store, _without(store, each, prompt_ids, row_files, scratch), each, prompt_ids
                )
                for name, each in held.items()
            }
            key = f"{folder_of(batch.number)}/batch.json"
            store.write(key, to_json(batch.model_copy(update=update)))
    for key, exam in _exams(store).items():
        replaced: dict[str, object] = {}
        if exam.data in keys:
            replaced |= _exam_without(store, exam.data, prompt_ids, row_files, scratch)
        if exam.reserve is not None and exam.reserve.data in keys:
            part = _exam_without(store, exam.reserve.data, prompt_ids, row_files, scratch)
            replaced["reserve"] = exam.reserve.model_copy(update=part)
        if replaced:
            changed = exam.model_copy(update=replaced)
            store.write(key, to_json(changed))
            logger.warning("exam %d is now %s, without erased prompts", exam.number, changed.exam)
    for key in keys:
        store.delete(key)


def _exam_without(
    store: Store, data: str, prompt_ids: Collection[str], row_files: RowFiles, scratch: Path
) -> dict[str, object]:
    """The fields of an exam, or of its reserve, after these prompts are erased from its data."""
    path = _without(store, data, prompt_ids, row_files, scratch)
    parsed = [parse_row(row, path.name) for row in row_files.read(path)]
    left = [row for row in parsed if isinstance(row, Prompt)]
    return {
        "exam": exam_digest(left),
        "data": _put(store, path, data, prompt_ids),
        "num_prompts": num_judged(left),
        "num_questions": len(left) - num_judged(left),
    }


def _without(
    store: Store, key: str, prompt_ids: Collection[str], row_files: RowFiles, scratch: Path
) -> Path:
    """A local file with the rows of the object, of which those of these prompts are empty."""
    source, target = scratch / f"old-{key.rpartition('/')[2]}", scratch / key.rpartition("/")[2]
    store.download(key, source)
    rows = (row for row in row_files.read(source) if isinstance(row, Row))
    row_files.write(target, (_ERASED if _is_of(row, prompt_ids) else row.fields for row in rows))
    source.unlink()
    return target


def _put(store: Store, path: Path, key: str, prompt_ids: Collection[str]) -> str:
    folder = key.rpartition("/")[0]
    target = f"{folder}/{digest([key, sorted(prompt_ids)])}.jsonl.gz"
    store.upload(path, target)
    path.unlink()
    return target


def _is_of(row: object, prompt_ids: Collection[str]) -> bool:
    return isinstance(row, Row) and not ids_of_row(row.fields).isdisjoint(prompt_ids)


def _exams(store: Store) -> dict[str, Exam]:
    keys = [info.key for info in store.list(f"{EXAMS}/") if info.key.endswith(".json")]
    found = {key: read_document(store, key, Exam) for key in keys}
    return {key: exam for key, exam in found.items() if exam is not None}
