"""What a comparison of selections makes."""

import json
from pathlib import Path

import pytest
from pydantic import JsonValue

from flows.study_record import (
    compared_nodes,
    refuse_equal_trainings,
    refuse_other_held_out_pairs,
)
from pvar.errors import ConfigError
from pvar.study_config import Arm, StudyConfig, cells, variant
from tests.workflow import start_workflow


@pytest.mark.parametrize(
    "unused",
    [{}, {"select.models": ["vader"]}, {"promote.model_name": "other"}, {"pair.seed": 0}],
    ids=["copy", "only model", "registered name", "unused seed"],
)
def test_arms_that_are_the_same_trainings_are_refused(
    tmp_path: Path, unused: dict[str, JsonValue]
) -> None:
    """However they are written: each would count as a method of its own."""
    flow = start_workflow(tmp_path / "home")
    top: dict[str, JsonValue] = {"select.strategy": "top"}
    arms = (
        Arm(name="random", settings={"select.strategy": "random"}),
        Arm(name="top", settings=top),
        Arm(name="again", settings={**top, **unused}),
    )
    study = StudyConfig(pipeline=flow.config, arms=arms)
    pipelines = {cell.name: variant(study, cell, 0) for cell in cells(study)}
    with pytest.raises(ConfigError, match="the arms top and again are the same trainings"):
        refuse_equal_trainings(pipelines, study.endpoints)
    del pipelines["again"]
    refuse_equal_trainings(pipelines, study.endpoints)


@pytest.mark.parametrize(
    "other",
    [
        {"sample.num_responses": 2},
        {"select.keep_truncated": True},
        {"score.reward_models": [{"kind": "fake"}]},
    ],
)
def test_margins_of_an_arm_on_other_pairs_than_its_controls_are_refused(
    tmp_path: Path, other: dict[str, JsonValue]
) -> None:
    flow = start_workflow(tmp_path / "home", **{"evaluate.margins": True})
    arms = (
        Arm(name="random", settings={"select.strategy": "random"}),
        Arm(name="top", settings={"select.strategy": "top"}),
        Arm(name="other", settings=other),
    )
    study = StudyConfig(pipeline=flow.config, arms=arms)
    pipelines = {cell.name: variant(study, cell, 0) for cell in cells(study)}
    with pytest.raises(ConfigError, match="pairs of arm other are not those of its control random"):
        refuse_other_held_out_pairs(study, pipelines)
    refuse_other_held_out_pairs(study.model_copy(update={"arms": arms[:2]}), pipelines)


def test_a_comparison_takes_no_benchmark_but_keeps_its_questions_out_of_training(
    tmp_path: Path,
) -> None:
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([{"instruction": "a", "output": "b", "generator": "base"}]))
    benchmarks = [
        {
            "kind": "alpaca_eval",
            "questions": str(questions),
            "baseline_outputs": str(questions),
            "judge": {"kind": "fake"},
        },
        {"kind": "lm_eval", "tasks": ["a"], "backend": "fake"},
    ]
    flow = start_workflow(tmp_path / "home", benchmarks=benchmarks)
    alone = [
        *("ingest", "questions-alpaca_eval", "exclude", "sample", "score-vader", "select", "pair"),
        *("train", "answers-opponent", "answers-challenger", "evaluate"),
    ]
    assert list(compared_nodes(flow.config)) == alone
    assert list(compared_nodes(flow.config, ["evaluate", "alpaca_eval"])) == [
        *alone,
        *("answers-alpaca_eval-challenger", "judge-alpaca_eval-challenger"),
        *("answers-alpaca_eval-opponent", "judge-alpaca_eval-opponent"),
        "benchmark-alpaca_eval",
    ]
