"""No model outlives its stage: what a stage leaves on a GPU, the next one does not have."""

import gc
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from tests.unit.infra.tiny_models import save_classifier, save_language_model
from tests.workflow import start_workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def reachable_models() -> int:
    """Models that a collection of garbage leaves (there is no GPU to ask)."""
    gc.collect()
    return sum(issubclass(type(each), PreTrainedModel) for each in gc.get_objects())


def test_no_model_outlives_its_stage(tmp_path: Path) -> None:
    judge = {
        "kind": "classifier",
        "name": "judge",
        "model": str(save_classifier(tmp_path / "judge", seed=2)),
        "dtype": "float32",
    }
    flow = start_workflow(
        tmp_path / "home",
        policy=str(save_language_model(tmp_path / "policy", seed=1)),
        sample={"engine": "transformers", "num_responses": 4, "max_new_tokens": 12},
        score={"reward_models": [judge]},
        # A random model's answers have no end.
        select={"budget": {"count": 4}, "keep_truncated": True},
        train={"learning_rate": 3e-3, "pairs_per_step": 4, "precision": "float32"},
    )
    before = reachable_models()
    left = {}
    for name in ("ingest", "sample", "score-judge", "select", "pair", "train"):  # and its reference
        assert flow.make(name).shards_made > 0
        left[name] = reachable_models() - before
    assert not any(left.values()), left
