"""A backtest with real trainings: two gates side by side, killed in the middle and gone on."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import pipeline as pipeline_module
from flows import retrain_batch
from flows.backtest import run_backtest
from flows.pipeline import run_node
from flows.run_record import NodeRecord
from flows.wiring import Wiring
from pvar.backtest_config import BacktestConfig
from pvar.config import PipelineConfig
from tasks.engine.node import Node
from tests.integration.test_pipeline import QUESTIONS
from tests.services.prefect_server import PrefectServer
from tests.study_parts import policies_in_this_process
from tests.unit.flows.test_backtest import KilledError
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import TOPICS, fake_settings

pytestmark = [
    pytest.mark.slow,
    # Raised inside libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

START, NUM_BATCHES = datetime(2026, 1, 5, tzinfo=UTC), 2


@pytest.fixture
def config(tmp_path: Path) -> BacktestConfig:
    history = tmp_path / "history"
    history.mkdir()
    size = len(TOPICS) // NUM_BATCHES
    for number in range(NUM_BATCHES):
        rows: list[dict[str, Any]] = [
            {"prompt": f"Describe {topic}."}
            for topic in TOPICS[number * size : (number + 1) * size]
        ]
        if number == 0:
            rows += QUESTIONS
        path = history / f"{START + timedelta(weeks=number):%Y-%m-%d}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = fake_settings(
        Path("replaced by the batch"),
        policy="champion",
        policy_if_none=str(save_language_model(tmp_path / "policy", seed=1)),
        train={"learning_rate": 0.01, "pairs_per_step": 4, "precision": "float32"},
        evaluate={
            "judge": {"kind": "fake"},
            "answers": {"engine": "fake", "max_new_tokens": 12},
            "against_first": True,
        },
        # A fake judge decides by hashes: any lower end above 0 passes.
        promote={"model_name": "tried", "min_win_rate": 0.0, "max_ability_loss": 1.0},
    )
    return BacktestConfig.model_validate(
        {
            "batches": str(history),
            "retrain": {"min_new_pairs": 1, "min_exam_prompts": 1, "pipeline": settings},
            "policies": {"loose": {}, "strict": {"promote.min_win_rate": 0.999}},
            "every_days": None,
        }
    )


def test_a_loose_gate_promotes_what_a_strict_one_does_not_also_after_a_kill(
    server: PrefectServer, config: BacktestConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.backtest.run_parts", policies_in_this_process)
    record_end, num_trained = retrain_batch.record_end, 0

    def end(batch: Any, attempt: Any, error: BaseException, wiring: Wiring) -> None:
        if not isinstance(error, KilledError):
            record_end(batch, attempt, error, wiring)

    def dying(node: Node, pinned: PipelineConfig, wiring: Wiring, run: str) -> NodeRecord:
        nonlocal num_trained
        entry = run_node(node, pinned, wiring, run)
        num_trained += node.name == "train"
        if (node.name, num_trained) == ("promote", 3):  # promoted, but not recorded
            raise KilledError
        return entry

    monkeypatch.setenv("PVAR_HOME", str(tmp_path / "home"))
    with monkeypatch.context() as killing:
        killing.setattr(retrain_batch, "record_end", end)
        killing.setattr(pipeline_module, "run_node", dying)
        with pytest.raises(KilledError):
            run_backtest(config)
    result, folder = run_backtest(config)

    loose, strict = result.policies
    assert [batch.fate for batch in loose.batches] == ["promoted"] * NUM_BATCHES
    assert [batch.fate for batch in strict.batches] == ["not promoted"] * NUM_BATCHES
    for policy in result.policies:
        assert policy.is_complete
        assert [batch.version for batch in policy.batches] == [1, 2]
        assert [batch.made_at.day for batch in policy.batches] == [5, 12]
        assert len({batch.curve for batch in policy.batches}) == 1  # one exam
        assert all(batch.against_first is not None for batch in policy.batches)
        assert [batch.ability for batch in policy.batches] == [0.0] * NUM_BATCHES
        assert all((batch.num_tokens or 0) > 0 for batch in policy.batches)
        assert all((batch.seconds or 0) > 0 for batch in policy.batches)
    assert strict.batches[0].why[0].startswith("win_rate_lower is ")
    page = (folder / "backtest.html").read_text()
    assert "2 of 2 batches under loose, 0 of 2 batches under strict" in page
    home = folder.parents[1]
    assert {path.name for path in home.iterdir()} == {"backtests", "models", "work"}
