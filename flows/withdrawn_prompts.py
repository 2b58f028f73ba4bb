"""Withdrawn prompts: those that a file names, and those that a configuration or a store has."""

import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from flows.wiring import Wiring
from infra.row_files import ROW_FILES, read_rows
from pvar.benchmark_config import LabelAgreementBenchmark
from pvar.config import IngestConfig, PipelineConfig
from pvar.errors import IncompleteError, InputError
from pvar.records import Prompt, Row
from pvar.source_columns import rows_in_form
from pvar.withdrawal import ids_of_lines, ids_of_row, ids_of_rows
from tasks.engine.artifact import open_artifact
from tasks.retraining.batches import prompts_of_batches, read_batches
from tasks.retraining.withdrawals import withdrawn_ids
from tasks.stages.exam_questions import QUESTIONS
from tasks.stages.ingest import INGEST, PROMPTS


def read_ids(path: Path) -> set[str]:
    """Ids that a file names: rows of JSON lines or Parquet by its name, else one id per line.

    Raises InputError for a line that names no prompt.
    """
    if path.name.endswith(ROW_FILES):
        return ids_of_rows(read_rows(path), str(path))
    try:
        return ids_of_lines(path.read_text("utf-8").splitlines(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); give a text file with one id per line, or rows "
            f"({', '.join(ROW_FILES)})"
        ) from error


def known_prompts(prompt_ids: Collection[str], wiring: Wiring) -> set[str]:
    """Those of these prompts that the store has: in the data of batches, or read by a run."""
    store = wiring.store
    with tempfile.TemporaryDirectory() as folder:
        found = prompts_of_batches(store, read_batches(store), read_rows, Path(folder))
        for stage in (INGEST.name, QUESTIONS.name):
            keys = {info.key.split("/")[1] for info in store.list(f"{stage}/")}
            for digest in sorted(keys):
                try:
                    artifact = open_artifact(store, stage, digest, Path(folder))
                except IncompleteError:
                    continue
                found |= {prompt.prompt_id for prompt in artifact.rows(PROMPTS, Prompt)}
    return found.intersection(prompt_ids)


def with_withdrawals(config: PipelineConfig, wiring: Wiring) -> PipelineConfig:
    """The pinned configuration that leaves out the prompts of its data that are withdrawn now.

    Only those that the data have become part of it: a withdrawal changes the digests of what was
    made from the prompt, and of nothing else. Without withdrawals no data are read.
    """
    withdrawn = withdrawn_ids(wiring.store)
    if not withdrawn:
        return config
    pairs = [
        each.pairs
        for each in config.benchmarks
        if isinstance(each, LabelAgreementBenchmark) and each.pairs is not None
    ]
    sources = [config.ingest.source]
    if config.reward_training is not None and config.reward_training.earlier is not None:
        sources.append(config.reward_training.earlier)  # read with the settings of ingest
    in_source = withdrawn & _ids(sources, wiring, config.ingest)
    exams = (*config.evaluate.prompts, *config.evaluate.reserve_prompts)
    in_exams = withdrawn & _ids([*exams, *pairs], wiring)
    ingest, evaluate = config.ingest, config.evaluate
    return config.model_copy(
        update={
            "ingest": ingest.model_copy(update={"withdrawn": _with(ingest.withdrawn, in_source)}),
            "evaluate": evaluate.model_copy(
                update={"withdrawn": _with(evaluate.withdrawn, in_exams)}
            ),
        }
    )


def _ids(references: Iterable[str], wiring: Wiring, ingest: IngestConfig | None = None) -> set[str]:
    """Ids of the prompts of these data; with the settings of ingest, as it reads its source."""
    read = ingest or IngestConfig()
    return {
        name
        for reference in references
        for row in rows_in_form(wiring.source_rows(reference), read.format, read.columns, reference)
        if isinstance(row, Row)
        for name in ids_of_row(row.fields)
    }


def _with(known: Iterable[str], found: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*known, *found}))
