"""One model selects and another labels: each stage reads its own, in the plan and in artifacts."""

from pathlib import Path

import pytest

from flows.report_correlations import correlations
from pvar.config import PipelineConfig
from pvar.records import Message, Pair, Prompt, Response, Score
from pvar.references import replace_references
from pvar.selection import Budget
from pvar.selection_config import PairConfig, SelectConfig
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.node import Node
from tasks.engine.tables import MeasuredPrompt, PromptVariance
from tasks.graph import plan_nodes
from tasks.stages.ingest import PROMPTS
from tasks.stages.pair import PAIRS
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES
from tasks.stages.select import MEASURED, SELECT, VARIANCE, ImplicitGapSpec, SelectSpec
from tests.artifacts import StageBench
from tests.workflow import Workflow, open_wiring, start_workflow

SMALL = {"kind": "fake", "name": "small"}
LARGE = {"kind": "vader", "name": "large"}
IMPLICIT = {"kind": "implicit", "policy": "org/p", "reference": "org/r"}
SCORED = ("ingest", "sample", "score-small", "score-large")


def planned(**parts: object) -> dict[str, Node]:
    models = {"score": {"reward_models": [SMALL, LARGE]}}
    config = PipelineConfig.model_validate(models | parts)
    return plan_nodes(replace_references(config, lambda each: f"{each.text}#1"))


def split_roles(home: Path) -> Workflow:
    """`small` selects and `large` labels."""
    changes = {
        "score.reward_models": [SMALL, LARGE],
        "select.models": ["small"],
        "pair.models": ["large"],
    }
    return start_workflow(home, **changes)


def test_the_selection_is_that_of_the_selecting_model_alone(tmp_path: Path) -> None:
    both = split_roles(tmp_path)
    both.make(*SCORED, "select", "pair")
    alone = start_workflow(tmp_path, **{"score.reward_models": [SMALL]})
    assert both.nodes["select"].keys == alone.nodes["select"].keys


def test_pairs_are_labelled_by_the_labelling_model_alone(tmp_path: Path) -> None:
    workflow = split_roles(tmp_path)
    workflow.make(*SCORED, "select", "pair")
    pairs = workflow.artifact("pair").rows(PAIRS, Pair)
    table = workflow.artifact("select").rows(VARIANCE, PromptVariance)
    rewards: dict[str, list[float]] = {}
    for score in workflow.artifact("score-large").rows(SCORES, Score):
        if score.reward is not None:
            rewards.setdefault(score.prompt_id, []).append(score.reward)
    assert {pair.prompt_id for pair in pairs} <= {row.prompt_id for row in table if row.selected}
    assert len(pairs) > 3
    for pair in pairs:
        assert pair.chosen_reward == max(rewards[pair.prompt_id])
        assert pair.rejected_reward == min(rewards[pair.prompt_id])


def test_a_change_of_the_labelling_model_selects_nothing_anew() -> None:
    roles = {"select": {"models": ["small"]}, "pair": {"models": ["large"]}}
    before = planned(**roles)
    other = {"score": {"reward_models": [SMALL, {**LARGE, "scale": 1.0}]}}
    after = planned(**other, **roles)
    assert after["select"].keys == before["select"].keys
    assert after["pair"].keys != before["pair"].keys


def test_models_named_one_by_one_are_those_of_the_default() -> None:
    named = {"select": {"models": ["large", "small"]}, "pair": {"models": ["small", "large"]}}
    assert {name: node.keys for name, node in planned(**named).items()} == {
        name: node.keys for name, node in planned().items()
    }


def test_the_first_round_is_not_scored_by_a_model_that_only_labels() -> None:
    rounds = {"sample": {"adaptive": {}}, "select": {"models": ["small"]}}
    nodes = planned(**rounds, pair={"models": ["large"]})
    assert "first-score-small" in nodes
    assert "first-score-large" not in nodes
    assert set(nodes["sample"].inputs) == {"prompts", "responses", "scores-small"}
    assert "scored" in nodes["score-small"].inputs
    assert "scored" not in nodes["score-large"].inputs


def test_the_implicit_gap_is_that_of_the_labelled_pairs() -> None:
    def selected(**parts: object) -> Node:
        models = {"score": {"reward_models": [SMALL, LARGE, IMPLICIT]}}
        gap = {"strategy": "implicit_gap_small", "models": ["small"]}
        return planned(**models, select=gap, **parts)["select"]

    node = selected(pair={"models": ["large"]})
    assert set(node.inputs) == {
        "prompts", "responses", "scores-small", "scores-large", "scores-implicit"
    }  # fmt: skip
    assert node.keys != selected().keys


def test_several_policies_are_compared_by_the_labelled_pairs() -> None:
    validation = {**IMPLICIT, "name": "validation", "policy": "org/v"}
    models = {"score": {"reward_models": [IMPLICIT, SMALL, LARGE, validation]}}
    by_small = {"strategy": "lossdiff_irm", "models": ["small"]}
    node = planned(**models, select=by_small, pair={"models": ["large"]})["select"]
    assert isinstance(node.spec, SelectSpec)
    assert node.spec.reward_models == ("small",)
    assert node.spec.implicit_gap == ImplicitGapSpec(
        reward_model="implicit",
        pairs=PairConfig(),
        further_models=("validation",),
        pair_models=("large",),
    )
    assert {f"scores-{name}" for name in ("implicit", "small", "large", "validation")} < set(
        node.inputs
    )


def test_the_gap_is_measured_on_the_pairs_of_the_labelling_model(tmp_path: Path) -> None:
    """small prefers x and large prefers y; the policy's rewards are 1 for x and 4 for y."""
    bench = StageBench(open_wiring(tmp_path), tmp_path)
    prompt = Prompt("p", (Message("user", "p"),), "train", "source")
    responses = [Response("p", text, row, text, 1, "stop") for row, text in enumerate("xy")]

    def scores(x: float, y: float) -> ArtifactKeys:
        rows = [Score("p", "x", x), Score("p", "y", y)]
        return bench.put("score", SCORES, rows, Score)

    inputs = {
        "prompts": bench.put("ingest", PROMPTS, [prompt], Prompt),
        "responses": bench.put("sample", RESPONSES, responses, Response),
        "scores-small": scores(1.0, 0.0),
        "scores-large": scores(0.0, 1.0),
        "scores-implicit": scores(1.0, 4.0),
    }

    def gap(pair_models: tuple[str, ...] | None) -> float:
        measured = ImplicitGapSpec(
            reward_model="implicit", pairs=PairConfig(), pair_models=pair_models
        )
        settings = SelectConfig(strategy="implicit_gap_small", budget=Budget(count=1))
        spec = SelectSpec(settings=settings, reward_models=("small",), implicit_gap=measured)
        rows = bench.run(SELECT, spec, inputs).rows(MEASURED, MeasuredPrompt)
        (found,) = (row.value for row in rows if row.measure == "implicit_gap")
        return found

    assert (gap(None), gap(("large",))) == (-3.0, 3.0)


def test_the_report_says_whether_both_agree_about_the_prompts(tmp_path: Path) -> None:
    workflow = split_roles(tmp_path)
    workflow.make(*SCORED, "select")
    swapped = start_workflow(
        tmp_path,
        **{
            "score.reward_models": [SMALL, LARGE],
            "select.models": ["large"],
            "pair.models": ["small"],
        },
    )
    swapped.make("select")

    def agreement(each: Workflow) -> float:
        artifacts = {name: each.artifact(name) for name in (*SCORED, "select")}
        rows = {row.measure: row for row in correlations(each.config, artifacts)}
        found = rows["PVar, labelling models"].spearman
        assert found is not None
        return found

    # ρ is symmetric, and these two models know nothing of each other.
    assert agreement(workflow) == pytest.approx(agreement(swapped))
    assert abs(agreement(workflow)) < 1
    alone = start_workflow(tmp_path, **{"score.reward_models": [SMALL, LARGE]})
    alone.make("select")
    artifacts = {name: alone.artifact(name) for name in (*SCORED, "select")}
    measures = [row.measure for row in correlations(alone.config, artifacts)]
    assert "PVar, labelling models" not in measures
