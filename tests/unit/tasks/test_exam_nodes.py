"""The nodes of comparisons with the first model."""

from pvar.config import PipelineConfig
from pvar.references import replace_references
from tasks.engine.node import Node
from tasks.graph import plan_nodes


def planned(policy: str, *, against_first: bool) -> dict[str, Node]:
    """The nodes of a run that begins with this model; the first one is org/first."""
    evaluate = {"divergence": True, "against_first": against_first}
    settings = {"policy": "champion", "policy_if_none": "org/first", "evaluate": evaluate}
    config = PipelineConfig.model_validate(settings).model_copy(update={"policy": policy})
    return plan_nodes(replace_references(config, lambda each: f"{each.text}#sha256-{each.text}"))


def test_the_divergence_from_the_first_model_is_a_second_artifact_for_later_models() -> None:
    first, later = (planned(name, against_first=True) for name in ("org/first", "org/champion"))
    assert first["divergence-first"].keys == first["divergence"].keys
    assert later["divergence-first"].keys != later["divergence"].keys
    assert later["divergence-first"].spec.reference == "org/first#sha256-org/first"
    inputs = [later[name].inputs for name in ("divergence-first", "divergence")]
    assert inputs[0] == inputs[1]  # the same answers of the trained model


def test_without_a_comparison_with_the_first_model_the_plan_is_as_before() -> None:
    with_first = planned("org/champion", against_first=True)
    without = planned("org/champion", against_first=False)
    names = {"answers-first", "evaluate-first", "divergence-first"}
    assert with_first.keys() - without.keys() == names
    same = without.keys() - {"promote"}
    assert {with_first[name].keys for name in same} == {without[name].keys for name in same}
