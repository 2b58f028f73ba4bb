"""What stands in for a real model is said, whether a fake or a lexicon that nobody chose."""

from pathlib import Path
from typing import Any

import pytest

from pvar.benchmark_config import LmEvalBenchmark
from pvar.config import PipelineConfig, ScoreConfig
from pvar.gate import GateDecision, with_stand_ins, without_ability
from pvar.reward_config import ClassifierReward
from pvar.runtime_config import RuntimeConfig
from pvar.stand_ins import stand_ins
from tasks.graph import plan_nodes
from tasks.report.data import ReportData
from tasks.report.page import render_report
from tests.workflow import start_workflow

VADER = {"score": {"reward_models": [{"kind": "vader"}]}}
AFINN = {"evaluate": {"judge": {"kind": "afinn"}}}


def keys(tree: dict[str, Any]) -> list[str]:
    return [each.partition("(")[2].split(" is ")[0] for each in said(tree)]


def said(tree: dict[str, Any]) -> tuple[str, ...]:
    return stand_ins(PipelineConfig.model_validate(tree))


def test_a_lexicon_that_nobody_chose_is_said_and_a_named_one_is_not() -> None:
    both = ["score.reward_models", "evaluate.judge"]
    assert keys({}) == keys({"score": {}, "evaluate": {"num_answers": 2}}) == both
    assert keys(VADER) == ["evaluate.judge"]
    assert keys(AFINN) == ["score.reward_models"]
    assert keys({**VADER, **AFINN}) == []
    models = (ClassifierReward(name="rm", model="org/rm"),)
    assert keys({"score": ScoreConfig(reward_models=models), **AFINN}) == []
    assert keys({"score": ScoreConfig(), **AFINN}) == ["score.reward_models"]


@pytest.mark.parametrize("runtime", [{}, {"lease_seconds": 30}, RuntimeConfig(lease_seconds=30)])
def test_it_is_still_known_where_a_configuration_was_stored_or_sent(runtime: object) -> None:
    """A worker and the report read it from JSON, in which every key is named."""
    config = PipelineConfig.model_validate({"runtime": runtime})
    again = PipelineConfig.model_validate_json(config.model_dump_json())
    assert again == PipelineConfig.model_validate(again.model_dump()) == config
    assert stand_ins(again) == stand_ins(config)
    assert len(stand_ins(config)) == 2
    other = ScoreConfig(reward_models=(ClassifierReward(name="rm", model="org/rm"),))
    assert len(stand_ins(again.model_copy(update={"score": other}))) == 1


def test_every_fake_is_said() -> None:
    fake = {"kind": "fake"}
    tree = {
        "sample": {"engine": "fake"},
        "score": {"reward_models": [fake]},
        "evaluate": {
            "judge": {"kind": "reward_model", "reward_model": {"kind": "fake", "name": "other"}},
            "answers": {"engine": "fake"},
            "allow_circular_judge": True,
        },
        "benchmarks": [LmEvalBenchmark(tasks=("a",), backend="fake").model_dump()],
    }
    assert keys(tree) == [
        "sample.engine",
        "evaluate.answers.engine",
        "score.reward_models.0",
        "evaluate.judge.reward_model",
        "benchmarks.0.backend",
    ]


def test_the_gates_note_says_it_and_no_digest_depends_on_it() -> None:
    unmeasured = GateDecision(True, (), "ability not measured: no ability questions")
    noted = with_stand_ins(unmeasured, ("verdicts are hashes",))
    assert noted.note == "ability not measured: no ability questions; verdicts are hashes"
    assert without_ability(noted.note) == "verdicts are hashes"
    assert without_ability(unmeasured.note) == ""
    assert without_ability(noted.note, "verdicts are hashes") == ""
    assert with_stand_ins(GateDecision(True, ()), ()).note == ""


def test_the_report_warns_of_it_first() -> None:
    data = ReportData("run", "title", "date", stand_ins=("verdicts are <hashes>",))
    top = render_report(data).partition("<main>")[0]
    assert "This run has stand-ins." in top
    assert "<li>verdicts are &lt;hashes&gt;</li>" in top
    assert "stand-ins" not in render_report(ReportData("run", "title", "date"))


def test_the_promotion_is_told_and_has_the_digest_that_it_had(tmp_path: Path) -> None:
    config = start_workflow(tmp_path).config
    named = plan_nodes(config)["promote"]
    assert any("sample.engine is fake" in each for each in named.spec.stand_ins)
    runtime = config.runtime.model_copy(update={"unnamed": ("evaluate.judge",)})
    unnamed = plan_nodes(config.model_copy(update={"runtime": runtime}))["promote"]
    assert any("evaluate.judge is not set" in each for each in unnamed.spec.stand_ins)
    assert unnamed.keys == named.keys
