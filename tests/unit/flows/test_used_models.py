"""Each stage that loads models says which, and which packages they need, before a run."""

from collections.abc import Mapping
from typing import Any

import pytest

from flows.commands.benchmark import NOT_USED
from flows.model_memory import used_models
from flows.preflight import as_if_pinned
from infra.needed_packages import needed_packages
from infra.preconditions import preconditions
from pvar.config import PipelineConfig
from pvar.number_format import NumberFormat, NumberFormatChoice
from pvar.references import find_references
from tasks.engine.node import Node
from tasks.graph import STAGES, plan_nodes
from tasks.stages.promote import PROMOTE
from tests.unit.tasks.test_identity import CONFIGURATIONS

JUDGE = {
    "kind": "reward_model",
    "reward_model": {"kind": "classifier", "name": "j", "model": "org/j"},
}
JUDGED_BY_MODELS: dict[str, dict[str, Any]] = {
    "a label audit": {"label_audit": {}, "evaluate": {"judge": JUDGE}},
    "benchmarks": {
        "benchmarks": [
            {
                "kind": "arena_hard",
                "questions": "question.jsonl",
                "baseline_answers": ["o3.jsonl"],
                "judge": JUDGE,
            }
        ]
    },
}

LOADING = sorted(name for name, stage in STAGES.items() if stage.image != "cpu")
"""The image of the others has no packages that load models."""


def number_format(choice: NumberFormatChoice, _: bool) -> NumberFormat:
    return "float32" if choice == "auto" else choice


def nodes_of(settings: Mapping[str, Any]) -> tuple[PipelineConfig, list[Node]]:
    config = as_if_pinned(PipelineConfig.model_validate(settings))
    return config, list(plan_nodes(config).values())


@pytest.mark.parametrize("stage", LOADING)
def test_a_stage_that_loads_models_says_which_and_which_packages_they_need(stage: str) -> None:
    """In some configuration: a judge may be no model."""
    counted = 0
    for settings in (*CONFIGURATIONS.values(), *JUDGED_BY_MODELS.values()):
        config, nodes = nodes_of(settings)
        used = {
            node.name: list(used_models(node, number_format))
            for node in nodes
            if node.stage.name == stage
        }
        if any(used.values()):
            counted += 1
            assert [*needed_packages(config, [stage])], f"add {stage} to infra/needed_packages.py"
    assert counted, f"add {stage} to used_models in flows/model_memory.py"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_model_of_a_node_is_loaded_or_only_named(name: str) -> None:
    """Stage promote compares names."""
    for node in nodes_of(CONFIGURATIONS[name])[1]:
        named = {each.text for each in find_references(node.spec) if each.kind == "model"}
        used = {model.reference for model in used_models(node, number_format)}
        assert node.stage is PROMOTE or named <= used, (
            f"{node.name}: add its models to used_models in flows/model_memory.py"
        )


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_run_of_benchmarks_needs_only_what_benchmarks_and_their_models_name(name: str) -> None:
    config = PipelineConfig.model_validate(CONFIGURATIONS[name])
    needed = {each.key.partition(".")[0] for each in preconditions(config, frozenset(STAGES))}
    pinned = {"policy", "policy_if_none", "ingest"}  # every reference of a configuration is
    assert needed - set(NOT_USED) <= {*pinned, "benchmarks", "benchmark_models"}
