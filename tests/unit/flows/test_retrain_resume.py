"""A batch that asked people goes on with the champions of then, and with the same questions."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.pinning import pin
from flows.retrain_resume import resumed
from flows.run_record import NodeRecord, RunRecord
from pvar.config import PipelineConfig
from pvar.retrain_decision import RetrainConfig
from tasks.graph import plan_nodes, reward_keys
from tests.services.registry import empty_database
from tests.unit.flows.test_pinning import learning, promote
from tests.workflow import open_wiring


def waiting_at(name: str, config: PipelineConfig) -> RunRecord:
    node = NodeRecord(name=name, artifact=plan_nodes(config)[name].keys.root, state="waiting")
    return RunRecord(
        run="r",
        started_at=datetime(2026, 3, 10, tzinfo=UTC),
        preset=None,
        config=config,
        mlflow_run="",
        mlflow_experiment="",
        nodes=(node,),
    )


@pytest.mark.slow  # MLflow
def test_both_opponents_are_pinned_anew_and_all_that_people_were_asked_about_stays(
    tmp_path: Path,
) -> None:
    shutil.copy(empty_database(), tmp_path / "mlflow.db")
    (model := tmp_path / "model").mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    wiring = open_wiring(tmp_path)
    changes = {"annotate": {"budget": 3}, "evaluate.opponent": "champion"}
    wanted = learning(tmp_path, model, **changes)
    asked = pin(wanted, wiring)

    other = pin(learning(tmp_path, model, **changes, **{"train.seed": 1}), wiring)
    champion = promote(other, wiring, model)
    adopted = pin(learning(tmp_path, model, **{"reward_training.train": {"seed": 1}}), wiring)
    version = wiring.registry.register("pvar-reward", model, reward_keys(adopted).root, {})
    wiring.registry.promote(version, instead_of=None, reason="gate passed")

    rules = RetrainConfig(pipeline=wanted)
    again = pin(resumed(waiting_at("annotate", asked), None, rules).config, wiring)
    assert again.evaluate.opponent == champion
    assert again.reward_training is not None
    assert again.reward_training.opponent.endswith(f"#{reward_keys(adopted).root}")
    assert (again.policy, again.score) == (asked.policy, asked.score)
    before, after = plan_nodes(asked), plan_nodes(again)
    changed = {name for name in before if before[name].keys != after[name].keys}
    assert {"adopt", "evaluate", "promote"} <= changed
    assert not {"ingest", "sample", "score-learned", "select", "annotate", "train"} & changed

    # A person decided about results: they stay.
    assert resumed(waiting_at("promote", asked), None, rules).config == asked
