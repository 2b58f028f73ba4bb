"""Twelve weeks replayed with real trainings under two policies, killed in the middle."""

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

START, NUM_WEEKS, ROWS_PER_WEEK = datetime(2026, 1, 5, tzinfo=UTC), 12, 6
GOOD, BAD = "A wonderful, lovely sight.", "A horrible, awful sight."


def labelled(text: str) -> dict[str, str]:
    return {"prompt": text, "chosen": GOOD, "rejected": BAD}


@pytest.fixture
def config(tmp_path: Path) -> BacktestConfig:
    history, exam = tmp_path / "history", tmp_path / "exam.jsonl"
    history.mkdir()
    texts = [
        f"{begin} {topic}." for begin in ("Describe", "Recommend", "Paint") for topic in TOPICS
    ]
    for number in range(NUM_WEEKS):
        rows = map(labelled, texts[number * ROWS_PER_WEEK : (number + 1) * ROWS_PER_WEEK])
        path = history / f"{START + timedelta(weeks=number):%Y-%m-%d}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [*({"prompt": text} for text in texts[NUM_WEEKS * ROWS_PER_WEEK :]), *QUESTIONS]
    exam.write_text("".join(json.dumps(row) + "\n" for row in asked))
    settings = fake_settings(
        Path("replaced by the batch"),
        policy="champion",
        policy_if_none=str(save_language_model(tmp_path / "policy", seed=1)),
        ingest={"source": "replaced by the batch", "eval_fraction": 0.01},
        select={"budget": {"fraction": 1.0}},
        train={"learning_rate": 0.01, "pairs_per_step": 4, "precision": "float32"},
        evaluate={
            "prompts": [str(exam)],
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
            "retrain": {"min_new_pairs": 1, "max_days_between_runs": None, "pipeline": settings},
            "policies": {
                "weekly": {},
                "strict": {"min_new_pairs": 6 * ROWS_PER_WEEK, "promote.min_win_rate": 0.999},
            },
            "every_days": None,
        }
    )


def test_twelve_weeks_under_two_policies_also_after_a_kill(
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

    weekly, strict = result.policies
    assert [batch.fate for batch in weekly.batches] == ["promoted"] * NUM_WEEKS
    assert [batch.made_at - START for batch in weekly.batches] == [
        timedelta(weeks=number) for number in range(NUM_WEEKS)
    ]
    assert [batch.fate for batch in strict.batches] == ["not promoted"] * 2
    assert [batch.num_rows for batch in strict.batches] == [6 * ROWS_PER_WEEK] * 2
    assert [batch.made_at - START for batch in strict.batches] == [
        timedelta(weeks=5),
        timedelta(weeks=11),
    ]
    for policy in result.policies:
        assert policy.is_complete
        assert [batch.version for batch in policy.batches] == [
            number + 1 for number in range(len(policy.batches))
        ]
        assert len({batch.curve for batch in policy.batches}) == 1  # one exam
        assert all(batch.num_labelled == batch.num_rows for batch in policy.batches)
        assert all(batch.against_first is not None for batch in policy.batches)
        assert {batch.ability for batch in policy.batches} == {0.0}
        assert all((batch.num_tokens or 0) > 0 for batch in policy.batches)
        assert all((batch.seconds or 0) > 0 for batch in policy.batches)
    assert strict.batches[0].why[0].startswith("win_rate_lower is ")
    page = (folder / "backtest.html").read_text()
    assert "12 of 12 batches under weekly, 0 of 2 batches under strict" in page
    home = folder.parents[1]
    assert {path.name for path in home.iterdir()} == {"backtests", "models", "work"}
