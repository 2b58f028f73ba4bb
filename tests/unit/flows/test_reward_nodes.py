"""A reward model from the labels of a run to the scores of the next one, on real neighbours."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.pinning import pin
from pvar.config import PipelineConfig
from pvar.records import Score
from tasks.stages.adopt import read_adoption
from tasks.stages.score import SCORES
from tests.services.registry import empty_database
from tests.unit.infra.tiny_models import save_classifier
from tests.workflow import TOPICS, Workflow, fake_settings, open_wiring

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def write_labels(path: Path, begin: str) -> Path:
    """Labelled prompts: answers that end with an exclamation mark are preferred."""
    rows = [
        {
            "prompt": f"{begin} {topic}.",
            "chosen": f"About {topic}!",
            "rejected": f"Not about {TOPICS[number - 1]}?",
        }
        for number, topic in enumerate(TOPICS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(source: Path, start: Path, **changes: Any) -> PipelineConfig:
    settings = fake_settings(
        source,
        **{
            "ingest.eval_fraction": 0.1,
            "score.reward_models": [{"kind": "classifier", "name": "learned", "model": "champion"}],
            "reward_training": {
                "model": str(start),
                "held_out_fraction": 0.4,
                "train": {"learning_rate": 3e-3, "num_epochs": 6},
                # Ten held-out labels show little.
                "gate": {"max_accuracy_loss": 0.9, "min_accuracy": 0.3, "max_brier": 0.6},
                **changes,
            },
        },
    )
    return PipelineConfig.model_validate(settings)


def test_what_a_run_adopts_scores_the_next_one(tmp_path: Path) -> None:
    shutil.copy(empty_database(), tmp_path / "mlflow.db")
    wiring = open_wiring(tmp_path)
    start = save_classifier(tmp_path / "start", seed=1)
    old = write_labels(tmp_path / "old.jsonl", "Describe")
    new = write_labels(tmp_path / "new.jsonl", "Tell me of")

    first = Workflow(pin(config(old, start), wiring), wiring)
    first.make("ingest", "reward", "adopt")
    record = read_adoption(first.artifact("adopt"))
    assert record.passed, record.reasons
    champion = wiring.registry.champion("pvar-reward")
    assert champion is not None
    assert champion.artifact == first.nodes["reward"].keys.root

    second = Workflow(pin(config(new, start, earlier=str(old)), wiring), wiring)
    (scoring,) = second.config.score.reward_models
    assert scoring.kind == "classifier"
    assert scoring.model == f"artifact:{champion.artifact}#{champion.artifact}"
    second.make("ingest", "sample", "score-learned")
    scores = second.artifact("score-learned").rows(SCORES, Score)
    assert scores
    assert all(score.reward is not None for score in scores)

    second.make("earlier-labels", "reward", "adopt")
    record = read_adoption(second.artifact("adopt"))
    assert record.opponent == scoring.model
    assert record.version == 2
    # What the first run held out is measured as earlier: nobody was trained on it.
    num_earlier = record.figures["earlier.num_labels"]
    assert num_earlier is not None
    assert num_earlier >= first_held_out(first)
    assert record.figures["earlier.opponent_accuracy"] is not None
    assert record.figures["earlier.opponent_accuracy"] > 0.5


def first_held_out(first: Workflow) -> int:
    found = read_adoption(first.artifact("adopt")).figures["num_new"]
    assert isinstance(found, int)
    return found
