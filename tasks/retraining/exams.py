"""The exams of retraining: frozen once, so that every version is measured on the same prompts.

    retrain/exams/{digest}.jsonl.gz     the prompts of an exam, written before its record
    retrain/exams/000001.json           written once: exam 1

The first retraining proposes what its batch holds out, its run is measured on that, and if the run
succeeds it is frozen: later ones use it. So data on which no run succeeds does not stay the exam.
Its number is a setting (`RetrainConfig.exam`). A new number freezes another exam, and the results
on the two are not comparable.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pvar.exam import exam_digest, num_judged
from pvar.incoming_rows import to_fields
from pvar.ports import Store
from pvar.records import Prompt
from tasks.engine.artifact import read_document

EXAMS = "retrain/exams"


class Exam(BaseModel):
    """An exam, frozen or proposed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    frozen_at: AwareDatetime
    """When it was proposed, until it is frozen."""
    exam: str
    """Digest of its prompts and accepted answers (`pvar/exam.py`)."""
    data: str
    """Key of the object that holds its rows."""
    batch: int
    """Number of the batch whose held-out prompts it has."""
    num_prompts: int
    """Prompts that are judged."""
    num_questions: int
    """Ability questions."""


def exam_of(store: Store, number: int) -> Exam | None:
    """The exam with this number; None if it is not frozen yet."""
    return read_document(store, _key(number), Exam)


def propose_exam(
    store: Store,
    number: int,
    prompts: Sequence[Prompt],
    *,
    batch: int,
    now: datetime,
    source_field: str | None,
    write: Callable[[Path, Iterable[Mapping[str, object]]], int],
    scratch: Path,
) -> Exam:
    """Write the rows of these prompts, from which a run reads them. The same prompts give the same
    object, so that a run that is repeated finds its results again. `source_field` is the field of
    a row that keeps the name of its source."""
    name = f"{exam_digest(prompts)}.jsonl.gz"
    write(scratch / name, (to_fields(prompt, source_field) for prompt in prompts))
    store.upload(scratch / name, f"{EXAMS}/{name}")
    return Exam(
        number=number,
        frozen_at=now,
        exam=exam_digest(prompts),
        data=f"{EXAMS}/{name}",
        batch=batch,
        num_prompts=num_judged(prompts),
        num_questions=len(prompts) - num_judged(prompts),
    )


def freeze_exam(store: Store, proposed: Exam, now: datetime) -> Exam:
    """Freeze a proposed exam, unless one with its number is frozen. The exam that counts is
    returned: the first one."""
    exam = proposed.model_copy(update={"frozen_at": now})
    if store.create(_key(exam.number), exam.model_dump_json(indent=1).encode() + b"\n"):
        return exam
    return exam_of(store, exam.number) or exam


def _key(number: int) -> str:
    return f"{EXAMS}/{number:06d}.json"
