"""How long a study takes, from what earlier studies in the store took."""

from datetime import UTC, datetime
from pathlib import Path

from flows.study_estimate import estimate_study
from flows.study_processes import failure_cause
from flows.study_record import StudyRecord, StudyTraining, save_study
from pvar.study_config import StudyConfig, cells, variant
from tests.workflow import Workflow, start_workflow


def record_of(flow: Workflow, run: str, *seconds: float | None) -> StudyRecord:
    """A study of two arms and two seeds; `seconds` of its trainings, None if it is not made."""
    study = StudyConfig(pipeline=flow.config, seeds=(0, 1), at_once=2)
    pipelines = {cell.name: variant(study, cell, 0) for cell in cells(study)}
    labels = [(cell, seed) for seed in study.seeds for cell in pipelines]
    return StudyRecord(
        run=run,
        started_at=datetime(2026, 11, 26, tzinfo=UTC),
        config=study,
        pipelines=pipelines,
        mlflow_run="run",
        trainings=tuple(
            StudyTraining(
                cell=cell, seed=seed, seconds=took, state="pending" if took is None else "done"
            )
            for (cell, seed), took in zip(labels, seconds, strict=True)
        ),
        nodes=(),
    )


def test_without_an_earlier_study_nothing_is_promised(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    said = estimate_study(record_of(flow, "b", None, None, None, None), flow.wiring)
    assert said == (
        "4 of 4 trainings are to be made; no training of this policy was measured here: "
        "the first will tell how long"
    )


def test_without_an_earlier_study_the_cost_is_the_expected_one(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    record = record_of(flow, "b", None, None, None, None)
    study = record.config.model_copy(update={"expected_cost": "about 18 hours of one GPU"})
    said = estimate_study(record.model_copy(update={"config": study}), flow.wiring)
    assert said.endswith("no training of this policy was measured here: about 18 hours of one GPU")


def test_the_rate_is_that_of_the_newest_study_of_the_same_policy(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    save_study(flow.store, record_of(flow, "a", 900.0, 900.0, 900.0, 900.0))
    # Trainings of a few seconds found their artifacts, and say nothing.
    save_study(flow.store, record_of(flow, "b", 120.0, 240.0, 3.0, None))
    flow.store.write("comparisons/c.json", b"{}")  # of another version
    flow.store.write("comparisons/b/certificate.json", b"{}")
    said = estimate_study(record_of(flow, "d", None, None, None, None), flow.wiring)
    assert "about 3 min 0 s each by an earlier study: 0.2 hours" in said
    assert "6 min 0 s with 2 at once" in said


def test_the_cause_of_a_failure_is_named() -> None:
    assert failure_cause(-9, []) == "its process was killed by signal 9"
    assert failure_cause(1, ["a", "error: no such file", "b"]) == "no such file"
    traceback = ["Traceback (most recent call last):", '  File "x"', "KeyError: 'k'"]
    assert failure_cause(1, traceback) == "KeyError: 'k'"
    assert failure_cause(3, ["nothing"]) == "its process ended with code 3"
