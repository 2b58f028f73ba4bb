"""The exam of a retraining: the one that is configured, or the frozen one, or a proposed one.

An exam may have no prompt that an earlier version was trained on. So a new one leaves out what
stage `exclude` would find in the data of all other batches. That data is taken as trained on, apart
from ability questions, which no run trains on. Not known are the data of runs outside of
retraining, such as those of a champion that `pvar run` trained.
"""

import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from infra.row_files import read_rows, write_rows
from pvar.config import IngestConfig, PipelineConfig
from pvar.errors import ConfigError
from pvar.exam import exam_digest, num_judged
from pvar.exclusion import MIN_SIMILARITY, find_exclusions
from pvar.incoming_rows import parse_row
from pvar.ports import Store
from pvar.records import Prompt
from pvar.retrain_decision import Batch, RetrainConfig
from tasks.retraining.batches import read_batches
from tasks.retraining.exams import (
    Exam,
    ExamParts,
    exam_of,
    freeze_exam,
    propose_exam,
    split_reserve,
)
from tasks.retraining.withdrawals import withdrawn_ids
from tasks.stages.ingest import held_out_prompts

logger = logging.getLogger(__name__)


class WithExam(NamedTuple):
    """The configuration of a batch's run, and the exam to freeze if that run succeeds."""

    config: PipelineConfig
    proposed: Exam | None = None


def with_exam(
    config: PipelineConfig,
    batch: Batch,
    rules: RetrainConfig,
    store: Store,
    now: datetime,
) -> WithExam:
    """The configuration with the exam of these rules, or one proposed from the batch if it is new.

    A configuration with `evaluate.prompts` keeps them; the reserve of an exam that was frozen
    before is still kept out of training. One for which no exam is frozen yet stays as it is, if the
    batch holds out too few prompts to judge: the run is measured on these alone. Raises ConfigError
    if the gate checks ability and the exam has no questions.
    """
    exam, withdrawn = exam_of(store, rules.exam), withdrawn_ids(store)
    if config.evaluate.prompts:
        return WithExam(with_reserve(exam, config, store))
    if exam is not None:
        exam = _without_withdrawn(exam, withdrawn, store)
        _require_questions(
            config,
            exam.num_questions,
            f"exam {exam.number}",
            f", or exam={exam.number + 1} if batch {batch.number} has such rows",
        )
        return WithExam(_measured_on(exam, config, store))
    return _propose(config, batch, rules, store, withdrawn, now)


def _propose(
    config: PipelineConfig,
    batch: Batch,
    rules: RetrainConfig,
    store: Store,
    withdrawn: Collection[str],
    now: datetime,
) -> WithExam:
    """An exam of what the batch holds out; without one if that is too little."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        held_out = held_out_prompts(
            _prompts(batch, store, scratch, config.ingest.source_field),
            eval_fraction=config.ingest.eval_fraction,
            min_similarity=config.ingest.near_duplicate_similarity,
            strict_below_words=config.ingest.strict_below_words,
        )
        held_out = [prompt for prompt in held_out if prompt.prompt_id not in withdrawn]
        prompts = not_trained_on(
            held_out, but=batch.number, ingest=config.ingest, store=store, scratch=scratch
        )
        share = None if config.evaluate.reserve_prompts else rules.reserve_share
        parts = split_reserve(prompts, share)
        is_enough = parts.fewest_judged >= rules.min_exam_prompts
        asked = parts.asked if is_enough else held_out
        _require_questions(config, len(asked) - num_judged(asked), f"batch {batch.number}")
        num_trained_on = len(held_out) - len(prompts)
        if not is_enough:
            _warn_of_too_few(batch, rules, parts, num_trained_on)
            return WithExam(config)
        proposed = propose_exam(
            store,
            rules.exam,
            parts,
            batch=batch.number,
            now=now,
            source_field=config.ingest.source_field,
            write=write_rows,
            scratch=scratch,
        )
    logger.info(
        "exam %d (%s) is proposed: %d prompts and %d ability questions that batch %d holds out, "
        "and %d of both in reserve, without %d that are in the data of other batches; it is frozen "
        "if the run succeeds",
        proposed.number,
        proposed.exam,
        proposed.num_prompts,
        proposed.num_questions,
        batch.number,
        len(parts.reserve),
        num_trained_on,
    )
    return WithExam(_measured_on(proposed, config, store), proposed)


def _without_withdrawn(exam: Exam, withdrawn: Collection[str], store: Store) -> Exam:
    """The exam as it is asked now: stage `questions` leaves out what is withdrawn.

    Raises ConfigError if no prompt is left that is judged.
    """
    if not withdrawn:
        return exam
    with tempfile.TemporaryDirectory() as folder:
        prompts = list(_rows(exam.data, store, Path(folder)))
    left = [prompt for prompt in prompts if prompt.prompt_id not in withdrawn]
    if not num_judged(left):
        raise ConfigError(
            f"exam {exam.number} has no prompt to judge that is not withdrawn, so no run is "
            f"started and no attempt counts; set exam={exam.number + 1}, which freezes another"
        )
    if len(left) < len(prompts):
        logger.warning(
            "exam %d: %d of its %d prompts are withdrawn and are not asked any more, so it is "
            "another exam (%s): results before and after are not comparable, and are on separate "
            "curves (pvar history MODEL --versions); looks at it begin at 1",
            exam.number,
            len(prompts) - len(left),
            len(prompts),
            exam_digest(left),
        )
    num_questions = len(left) - num_judged(left)
    update = {"num_prompts": num_judged(left), "num_questions": num_questions}
    return exam.model_copy(update=update)


def freeze(proposed: Exam, store: Store, now: datetime) -> None:
    """Freeze the exam on which a run was measured that did not fail."""
    exam = freeze_exam(store, proposed, now)
    if exam.exam != proposed.exam:
        logger.warning(
            "exam %d (%s) was frozen while the run of batch %d waited, which was measured on its "
            "own proposal (%s): results on the two are not comparable, and are on separate curves "
            "(pvar history MODEL --versions)",
            exam.number,
            exam.exam,
            proposed.batch,
            proposed.exam,
        )
        return
    logger.info("exam %d (%s) is frozen", exam.number, exam.exam)
    if exam.number > 1:
        logger.warning(
            "exam %d replaces exam %d: results before and after are not comparable, and are on "
            "separate curves (pvar history MODEL --versions)",
            exam.number,
            exam.number - 1,
        )


def _measured_on(exam: Exam, config: PipelineConfig, store: Store) -> PipelineConfig:
    config = with_reserve(exam, config, store)
    update = {"prompts": (f"{store.uri}/{exam.data}",)}
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=update)})


def with_reserve(exam: Exam | None, config: PipelineConfig, store: Store) -> PipelineConfig:
    """With the reserve of a frozen exam, which audits look at, unless there is another one."""
    if exam is None or exam.reserve is None or config.evaluate.reserve_prompts:
        return config
    update = {"reserve_prompts": (f"{store.uri}/{exam.reserve.data}",)}
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=update)})


def _require_questions(
    config: PipelineConfig, num_questions: int, what: str, another_way: str = ""
) -> None:
    gate = config.promote
    bounds = {
        "max_ability_loss": gate.max_ability_loss,
        "max_total_ability_loss": gate.max_total_ability_loss,
    }
    checked = [f"promote.{name}" for name, bound in bounds.items() if bound is not None]
    if num_questions or not checked or gate.mode == "never":
        return
    raise ConfigError(
        f"{' and '.join(checked)} need ability questions, but {what} has none (rows with an "
        "`answer`), so no run is started and no attempt counts; set evaluate.prompts to files of "
        f"prompts and questions, or {'=null, '.join(checked)}=null{another_way}"
    )


def _warn_of_too_few(
    batch: Batch, rules: RetrainConfig, parts: ExamParts, num_trained_on: int
) -> None:
    logger.warning(
        "no exam is frozen: batch %d holds out %d prompts to judge and %d for the reserve (without "
        "%d that are in the data of other batches), and min_exam_prompts is %d; this run is "
        "measured on what its batch holds out, and its results are not comparable with those of "
        "other runs",
        batch.number,
        num_judged(parts.asked),
        num_judged(parts.reserve),
        num_trained_on,
        rules.min_exam_prompts,
    )


def not_trained_on(
    prompts: list[Prompt], *, but: int | None, ingest: IngestConfig, store: Store, scratch: Path
) -> list[Prompt]:
    """Those of these prompts that the data of no batch has, or nearly so; the batch of number `but`
    does not count."""
    trained_on: set[str] = set()
    exclusions = find_exclusions(
        _noted(_other_prompts(but, store, scratch), trained_on),
        {prompt.prompt_id: [prompt] for prompt in prompts},  # an exam each: all that match count
        ngram_words=ingest.decontaminate_ngram_words,
        min_similarity=MIN_SIMILARITY,
    )
    trained_on |= {exclusion.exam for exclusion in exclusions}
    return [prompt for prompt in prompts if prompt.prompt_id not in trained_on]


def _other_prompts(but: int | None, store: Store, scratch: Path) -> Iterator[Prompt]:
    for other in read_batches(store):
        if other.number != but:
            rows = _prompts(other, store, scratch)
            yield from (prompt for prompt in rows if not prompt.is_question)


def _noted(prompts: Iterable[Prompt], ids: set[str]) -> Iterator[Prompt]:
    for prompt in prompts:
        ids.add(prompt.prompt_id)
        yield prompt


def _prompts(
    batch: Batch, store: Store, scratch: Path, source_field: str | None = None
) -> Iterator[Prompt]:
    return _rows(batch.data, store, scratch, source_field)


def _rows(
    data: str, store: Store, scratch: Path, source_field: str | None = None
) -> Iterator[Prompt]:
    path = scratch / data.rpartition("/")[2]
    store.download(data, path)
    rows = (parse_row(row, path.name, source_field) for row in read_rows(path))
    return (parsed for parsed in rows if isinstance(parsed, Prompt))
