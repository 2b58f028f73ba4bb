"""`train.label_weight`: how often labelled pairs are seen, and that all else stays."""

import json
import logging
from pathlib import Path

import pytest

from pvar.records import Pair
from tasks.engine.tables import TrainStep
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import TOPICS, Workflow, start_workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def trained(folder: Path, *, num_labelled: int, method: str = "dpo", **train: object) -> Workflow:
    """A training of one pair a step on prompts of which the first have labels."""
    source = folder / "labels.jsonl"
    folder.mkdir()
    rows: list[dict[str, str]] = [{"prompt": f"Describe {topic}."} for topic in TOPICS[:12]]
    for row in rows[:num_labelled]:
        row |= {"chosen": "It is good.", "rejected": "It is bad."}
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"method": method, "pairs_per_step": 2, "precision": "float32", **train}
    flow = start_workflow(
        folder / "home",
        **{
            "ingest.source": str(source),
            "policy": str(save_language_model(folder / "policy", seed=1)),
            "select.budget": {"fraction": 1.0},
            "pair": {"own_labels": True},
            "train": settings,
            "runtime": {"pairs_per_device": 2, "lease_seconds": 60},
        },
    )
    flow.make("ingest", "sample", "score-vader", "select", "pair", "train")
    return flow


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_labelled_pair_is_seen_as_often_as_its_weight_says(tmp_path: Path, method: str) -> None:
    flow = trained(tmp_path / "flow", num_labelled=6, method=method, label_weight=3)
    pairs = flow.artifact("pair").rows("pairs.parquet", Pair)
    num_labelled = sum(pair.chosen_reward is None for pair in pairs)
    assert 0 < num_labelled < len(pairs)
    num_seen = 3 * num_labelled + (len(pairs) - num_labelled)
    assert len(flow.artifact("train").rows("steps.parquet", TrainStep)) == -(-num_seen // 2)
    assert flow.artifact("train").manifest.summary["num_pairs"] == len(pairs)


def test_a_weight_that_weighs_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trained(tmp_path / "none", num_labelled=0, label_weight=3, num_steps=1)
    (warning,) = [each.message for each in caplog.records if "label_weight" in each.message]
    assert "train.label_weight = 3 weighs nothing: 0 of" in warning
