"""A comparison of selections: trained for real, on answers and scores that are made once."""

from pathlib import Path

import pytest

from flows.comparison import ComparisonRecord, compare
from flows.garbage_collection import plan_sweep
from flows.wiring import connect
from pvar.config import PipelineConfig
from pvar.method_comparison import CompareConfig
from pvar.ports import Store
from tests.services.prefect_server import PrefectServer
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import fake_settings, write_prompts

pytestmark = [
    pytest.mark.slow,
    # Raised inside libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def artifacts(store: Store, stage: str) -> int:
    return sum(info.key.endswith("/manifest.json") for info in store.list(f"{stage}/"))


def test_each_selection_is_trained_beside_random_on_shared_answers(
    server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    settings = fake_settings(
        write_prompts(tmp_path / "prompts.jsonl"),
        policy=str(save_language_model(tmp_path / "policy", seed=1)),
        train={"learning_rate": 0.01, "pairs_per_step": 4, "precision": "float32"},
        evaluate={"judge": {"kind": "fake"}, "answers": {"engine": "fake", "max_new_tokens": 12}},
    )
    pipeline = PipelineConfig.model_validate(settings)
    table = compare(CompareConfig(pipeline=pipeline, strategies=("top",), seeds=(3,)))

    header, _, random, top, *rest = table.splitlines()
    assert header.startswith("| selection | win rate | minus random |")
    assert random.startswith("| random | ")
    assert top.startswith("| top | ")
    assert rest == [
        "",
        "11 of 11 prompts judged. Intervals of differences are over prompts only: the spread of "
        "trainings is not known.",
    ]
    wiring = connect()
    store = wiring.store
    made = {
        stage: artifacts(store, stage) for stage in ("ingest", "score", "select", "pair", "train")
    }
    assert made == {"ingest": 1, "score": 1, "select": 2, "pair": 2, "train": 2}
    assert artifacts(store, "sample") == 4  # for training, of the opponent, of two challengers
    record, kept = (info.key for info in store.list("comparisons/"))  # .json, .md
    assert store.read(kept).decode() == table
    named = {
        node.artifact for node in ComparisonRecord.model_validate_json(store.read(record)).nodes
    }
    stages = ("ingest", "sample", "score", "select", "pair", "train", "evaluate")
    assert len(named) == sum(artifacts(store, stage) for stage in stages)
    assert plan_sweep(wiring, None).plan.artifacts == ()
    assert list((tmp_path / "work").iterdir()) == []
    assert wiring.tracking.client.search_registered_models() == []
