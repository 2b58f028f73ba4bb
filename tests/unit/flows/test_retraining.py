"""What a retraining changes in the configuration of its pipeline."""

from flows.retraining import with_own_labels
from pvar.config import PipelineConfig
from pvar.references import replace_references
from tasks.graph import plan_nodes


def test_labels_that_arrive_change_the_pairs_and_nothing_before_them() -> None:
    implicit = {"kind": "implicit", "policy": "org/p", "reference": "org/r"}
    settings = {
        "score": {"reward_models": [{"kind": "vader"}, implicit]},
        "select": {"strategy": "implicit_gap_small"},  # measured on the pairs of sampled answers
    }
    config = replace_references(
        PipelineConfig.model_validate(settings), lambda each: f"{each.text}#sha256-{each.text}"
    )
    before, after = plan_nodes(config), plan_nodes(with_own_labels(config))
    changed = {name for name, node in before.items() if node.keys != after[name].keys}
    assert "pair" in changed
    assert changed.isdisjoint({"ingest", "sample", "score-vader", "score-implicit", "select"})
