"""A study: methods that differ in some settings, each trained several times, in one table.

Each training runs in a process of its own (`flows/study_processes.py`), `at_once` side by side.
What several trainings need is made first, once. Complete artifacts are reused, so the same command
goes on with a study that was stopped. A training that fails is named in the result and does not
stop the others. No model is registered.

After each minute, `comparisons/RUN/` in the store has the results so far: `certificate.md` and
`.json`, `outcomes.jsonl` with the outcome of every prompt in every training, and figures. The files
are also in MLflow, and the page is a Prefect artifact.
"""

import json
import logging
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import JsonValue

from flows.complete_studies import CERTIFICATE, pin_study
from flows.preflight import refuse_unmakeable_here
from flows.study_estimate import estimate_study
from flows.study_member import SHARED
from flows.study_outcomes import (
    Outcome,
    is_made,
    mean_seconds,
    read_outcome,
    total_seconds,
)
from flows.study_processes import PartEnd, run_parts
from flows.study_record import (
    FOLDER,
    ComparedNode,
    StudyRecord,
    StudyTraining,
    compared_nodes,
    refuse_equal_trainings,
    refuse_other_held_out_pairs,
    save_study,
)
from flows.wiring import Wiring, connect
from pvar.artifacts import Summary
from pvar.config import PipelineConfig
from pvar.errors import StageError
from pvar.study_certificate import Certificate, Pool
from pvar.study_config import StudyConfig, with_seed
from pvar.study_margins import HeldOutMargins, tabulate_margins
from pvar.study_results import TrainingResult, tabulate
from tasks.engine.progress_text import duration_text
from tasks.engine.work_folders import work_folder
from tasks.report.study_figures import study_figures

logger = logging.getLogger(__name__)

KEEP_SECONDS = 60.0
"""The results so far are written at most this often, and at the end."""


@flow(
    name="compare",
    description="Train each arm of a study several times, and compare the arms with the control.",
    persist_result=False,
)
def compare(config: StudyConfig) -> str:
    """Run the study and return its certificate as Markdown.

    Args:
        config: The pipeline, the arms and the seeds.
    """
    wiring = connect()
    work = _Work(_begin(config, wiring), wiring)
    try:
        work.run()
        page = work.keep()
    except BaseException:  # stopped from outside, too
        work.try_to_keep()
        wiring.tracking.end_failed_run(work.record.mlflow_run)
        raise
    record = work.record
    failed = [each for each in record.trainings if each.state == "failed"]
    wiring.tracking.end_run(record.mlflow_run, failed=bool(failed))
    create_markdown_artifact(page, key="comparison", description=record.run)
    if failed:
        logger.info("%s", page)
        raise StageError(
            f"{len(failed)} of {len(record.trainings)} trainings failed, first "
            f"{failed[0].label}: {failed[0].error}; the others are in {wiring.store.uri}/"
            f"{FOLDER}/{record.run}/{CERTIFICATE}; run the same command again to make what "
            "is missing"
        )
    return page


def _begin(config: StudyConfig, wiring: Wiring) -> StudyRecord:
    """Pin every arm, and record the artifacts of all trainings before any of them is made."""
    pinned, pipelines = pin_study(config, wiring)
    refuse_equal_trainings(pipelines, pinned.endpoints)
    refuse_other_held_out_pairs(pinned, pipelines)
    _refuse_unmakeable(pinned, pipelines, wiring)
    trainings = [StudyTraining(cell=cell, seed=seed) for seed in config.seeds for cell in pipelines]
    now = datetime.now(UTC)
    run = f"compare-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    record = StudyRecord(
        run=run,
        started_at=now,
        config=pinned,
        pipelines=pipelines,
        mlflow_run=wiring.tracking.start_run(run, {"pvar.run": run}),
        trainings=tuple(trainings),
        nodes=tuple(
            ComparedNode(
                cell=training.cell, seed=training.seed, name=node.name, artifact=node.keys.root
            )
            for training in trainings
            for node in compared_nodes(
                with_seed(pinned, pipelines[training.cell], training.seed), pinned.endpoints
            ).values()
        ),
    )
    save_study(wiring.store, record)
    logger.info("study %s: %s", run, estimate_study(record, wiring))
    return record


def _refuse_unmakeable(
    study: StudyConfig, pipelines: Mapping[str, PipelineConfig], wiring: Wiring
) -> None:
    """Raise an error for everything that the trainings of a cell need of this machine and lack."""
    for pipeline in pipelines.values():
        seeded = [with_seed(study, pipeline, seed) for seed in study.seeds]
        nodes = {
            node.keys.root: node
            for config in seeded
            for node in compared_nodes(config, study.endpoints).values()
        }
        refuse_unmakeable_here(seeded[0], nodes.values(), wiring)


class _Work:
    """The study while it runs: its record, and the results so far."""

    def __init__(self, record: StudyRecord, wiring: Wiring) -> None:
        self.record = record
        self._wiring = wiring
        self._outcomes: list[Outcome] = []

    def run(self) -> None:
        """Make what is shared, then every training. The results so far are kept once a minute.

        A training of which all is there, of an earlier start, needs no process.
        """
        run, at_once = self.record.run, self.record.config.at_once
        labels = []
        for training in self.record.trainings:
            if is_made(self.record, training, self._wiring):
                self._note(PartEnd(training.label, None, seconds=0.0))
            else:
                labels.append(training.label)
        if not labels:
            return
        for end in run_parts(run, [SHARED], at_once=1):
            if end.error is not None:  # the trainings that need what failed will say so
                logger.warning("what several trainings need: %s", end.error)
        kept_at = time.monotonic()
        for number, end in enumerate(run_parts(run, labels, at_once=at_once), start=1):
            self._note(end)
            left = len(labels) - number
            _log_end(end, number, len(labels), mean_seconds(self.record), left / at_once)
            if left and time.monotonic() - kept_at > KEEP_SECONDS:
                self.try_to_keep()
                kept_at = time.monotonic()

    def _note(self, end: PartEnd) -> None:
        training = _ended(self.record, end)
        self.record = self.record.with_training(training)
        save_study(self._wiring.store, self.record)
        if end.error is None:
            with work_folder(self._wiring.settings.home, "compare") as scratch:
                self._outcomes.append(read_outcome(self.record, training, self._wiring, scratch))

    def keep(self) -> str:
        """Write the results so far to the store and to MLflow; returns the page."""
        return _keep(self.record, self._outcomes, self._wiring)

    def try_to_keep(self) -> None:
        """Keep the results so far if there are any. A server that is away for a while, or away
        when the study is stopped, does not end the trainings that run."""
        if not self._outcomes:
            return
        try:
            self.keep()
        except Exception as error:  # noqa: BLE001  whatever store and MLflow raise
            logger.warning("%s: could not write the results so far: %s", self.record.run, error)


def _ended(record: StudyRecord, end: PartEnd) -> StudyTraining:
    training = next(each for each in record.trainings if each.label == end.part)
    state = "done" if end.error is None else "failed"
    return training.model_copy(update={"state": state, "seconds": end.seconds, "error": end.error})


def _log_end(end: PartEnd, number: int, total: int, mean: float | None, rounds_left: float) -> None:
    if end.error is not None:
        logger.warning("training %s failed: %s", end.part, end.error)
    left = "" if mean is None else f", about {duration_text(mean * rounds_left)} left"
    logger.info("training %d of %d ended: %s%s", number, total, end.part, left)


def _keep(record: StudyRecord, outcomes: Sequence[Outcome], wiring: Wiring) -> str:
    """Write the results so far to the store and to MLflow; returns the page."""
    pool = outcomes[0].pool if outcomes else None
    certificate = _certificate(record, outcomes, pool)
    page = certificate.to_markdown()
    files = {
        CERTIFICATE: page,
        "certificate.json": json.dumps(certificate.to_json(), indent=1) + "\n",
        "outcomes.jsonl": "".join(f"{json.dumps(row)}\n" for row in outcome_rows(outcomes)),
        **{f"{name}.svg": svg for name, svg in _figures(certificate, outcomes).items()},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            file = Path(folder) / name
            file.write_text(text, encoding="utf-8")
            wiring.store.upload(file, f"{FOLDER}/{record.run}/{name}")
            wiring.tracking.log_file(record.mlflow_run, file)
    figures: Summary = {
        f"win_rate_{re.sub(r'[^-_.A-Za-z0-9]', '_', row.cell)}": row.win_rate.difference
        for row in certificate.rows
    }
    wiring.tracking.log_summary(record.mlflow_run, figures)
    return page


def _figures(certificate: Certificate, outcomes: Sequence[Outcome]) -> dict[str, str]:
    margins: dict[str, list[NDArray[np.float64]]] = {}
    for outcome in outcomes:
        margins.setdefault(outcome.training.cell, []).append(outcome.margins)
    points = [point for outcome in outcomes if (point := outcome.point) is not None]
    return study_figures(certificate.rows, points, margins, certificate.margins)


def _certificate(
    record: StudyRecord, outcomes: Sequence[Outcome], pool: Pool | None
) -> Certificate:
    first, *others = record.config.endpoints
    results: dict[str, list[TrainingResult]] = {}
    start: dict[str, Mapping[str, float]] = {}
    sources: dict[str, str] = {}
    held_out: dict[str, list[HeldOutMargins]] = {}
    for outcome in outcomes:
        if outcome.held_out is not None:
            held_out.setdefault(outcome.training.cell, []).append(outcome.held_out)
        results.setdefault(outcome.training.cell, []).append(outcome.result)
        start[outcome.training.cell] = outcome.start_ability
        sources |= outcome.sources
    return Certificate(
        run=record.run,
        study=record.config,
        pool=pool,
        rows=tabulate(record.config, results, start, first, sources),
        further={name: tabulate(record.config, results, start, name, sources) for name in others},
        seconds=total_seconds(record),
        failures={each.label: each.error for each in record.trainings if each.error is not None},
        margins=tabulate_margins(record.config, held_out),
    )


def outcome_rows(outcomes: Sequence[Outcome]) -> Iterator[dict[str, JsonValue]]:
    """One row per prompt, question and training: what the intervals are computed from."""
    for outcome in outcomes:
        training = outcome.training
        for endpoint, values in {
            **outcome.result.preferences, "ability": outcome.result.ability,
        }.items():  # fmt: skip
            for prompt_id, value in values.items():
                yield {
                    "arm": training.cell, "seed": training.seed, "endpoint": endpoint,
                    "prompt_id": prompt_id, "source": outcome.sources.get(prompt_id),
                    "value": value,
                }  # fmt: skip
