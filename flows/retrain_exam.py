"""The exam of a retraining: the one that is configured, or the frozen one, or a new one."""

import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from infra.row_files import read_rows, write_rows
from pvar.config import IngestConfig, PipelineConfig
from pvar.exam import num_judged
from pvar.incoming_rows import parse_row
from pvar.ports import Store
from pvar.records import Prompt
from pvar.retrain_decision import Batch
from tasks.retraining.exams import Exam, exam_of, freeze_exam
from tasks.stages.ingest import held_out_prompts

logger = logging.getLogger(__name__)


def with_exam(
    config: PipelineConfig, batch: Batch, number: int, store: Store, now: datetime | None = None
) -> PipelineConfig:
    """The configuration with exam `number`, which is first frozen from the batch if it is new.

    A configuration with `evaluate.prompts` stays as it is. So does one for which no exam is frozen
    yet, if the batch holds out no prompt to judge: stage ingest says what is missing.
    """
    if config.evaluate.prompts:
        return config
    exam = exam_of(store, number)
    if exam is None:
        exam = _freeze(batch, number, config.ingest, store, now or datetime.now(UTC))
    if exam is None:
        return config
    evaluate = config.evaluate.model_copy(update={"prompts": (f"{store.uri}/{exam.data}",)})
    return config.model_copy(update={"evaluate": evaluate})


def _freeze(
    batch: Batch, number: int, ingest: IngestConfig, store: Store, now: datetime
) -> Exam | None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        prompts = held_out_prompts(
            _prompts(batch, store, scratch),
            eval_fraction=ingest.eval_fraction,
            min_similarity=ingest.near_duplicate_similarity,
        )
        if not num_judged(prompts):
            return None
        exam = freeze_exam(
            store, number, prompts, batch=batch.number, now=now, write=write_rows, scratch=scratch
        )
    logger.info(
        "exam %d (%s) is frozen: %d prompts and %d ability questions that batch %d holds out",
        number,
        exam.exam,
        exam.num_prompts,
        exam.num_questions,
        exam.batch,
    )
    if number > 1:
        logger.warning(
            "exam %d replaces exam %d: results before and after are not comparable, and are on "
            "separate curves (pvar history MODEL --versions)",
            number,
            number - 1,
        )
    return exam


def _prompts(batch: Batch, store: Store, scratch: Path) -> list[Prompt]:
    path = scratch / batch.data.rpartition("/")[2]
    store.download(batch.data, path)
    rows = (parse_row(row, path.name) for row in read_rows(path))
    return [parsed for parsed in rows if isinstance(parsed, Prompt)]
