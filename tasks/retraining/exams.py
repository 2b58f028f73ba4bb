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
from typing import NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pvar.digest import digest
from pvar.exam import exam_digest, num_judged
from pvar.incoming_rows import to_fields
from pvar.ports import Store
from pvar.records import Prompt
from tasks.engine.artifact import read_document

EXAMS = "retrain/exams"


class ReserveExam(BaseModel):
    """The part of an exam that only audits ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exam: str
    """Digest of its prompts and accepted answers."""
    data: str
    """Key of the object that holds its rows."""
    num_prompts: int
    """Prompts that are judged."""
    num_questions: int
    """Ability questions."""


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
    reserve: ReserveExam | None = None
    """What is kept apart from its prompts; None if nothing is."""


class ExamParts(NamedTuple):
    """The prompts of an exam, and those of its reserve."""

    asked: list[Prompt]
    reserve: list[Prompt]

    @property
    def fewest_judged(self) -> int:
        """Number of prompts to judge in the smaller of the two; an empty reserve does not count."""
        return min(num_judged(part) for part in (self.asked, self.reserve or self.asked))


def split_reserve(prompts: Iterable[Prompt], share: float | None) -> ExamParts:
    """Part the prompts by a hash of their ids: each is in the reserve with probability `share`."""
    parts = ExamParts([], [])
    for prompt in prompts:
        position = int(digest(["reserve", prompt.prompt_id], length=8), 16) / 16**8
        (parts.reserve if position < (share or 0) else parts.asked).append(prompt)
    return parts


def newest_exam(store: Store) -> Exam | None:
    """The frozen exam with the highest number; None if there is none."""
    names = (info.key.removeprefix(f"{EXAMS}/") for info in store.list(f"{EXAMS}/"))
    numbers = [int(name.removesuffix(".json")) for name in names if name.endswith(".json")]
    return exam_of(store, max(numbers)) if numbers else None


def exam_of(store: Store, number: int) -> Exam | None:
    """The exam with this number; None if it is not frozen yet."""
    remedy = "restore it from a backup: without it the next run freezes another exam"
    return read_document(store, _key(number), Exam, remedy=remedy)


def propose_exam(
    store: Store,
    number: int,
    parts: ExamParts,
    *,
    batch: int,
    now: datetime,
    source_field: str | None,
    write: Callable[[Path, Iterable[Mapping[str, object]]], int],
    scratch: Path,
) -> Exam:
    """Write the rows of these prompts, from which a run reads them. The same prompts give the same
    objects, so that a run that is repeated finds its results again. `source_field` is the field of
    a row that keeps the name of its source."""

    def put(prompts: Sequence[Prompt]) -> ReserveExam:
        exam = exam_digest(prompts)
        name = f"{exam}.jsonl.gz"
        write(scratch / name, (to_fields(prompt, source_field) for prompt in prompts))
        store.upload(scratch / name, f"{EXAMS}/{name}")
        return ReserveExam(
            exam=exam,
            data=f"{EXAMS}/{name}",
            num_prompts=num_judged(prompts),
            num_questions=len(prompts) - num_judged(prompts),
        )

    return Exam(
        number=number,
        frozen_at=now,
        batch=batch,
        **put(parts.asked).model_dump(),
        reserve=put(parts.reserve) if parts.reserve else None,
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
