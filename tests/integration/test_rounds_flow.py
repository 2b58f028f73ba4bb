"""Rounds of real trainings: each from the last one's champion, also after an interruption."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from flows import rounds as rounds_flow
from flows.commands import rounds as command
from flows.exit_codes import DONE
from flows.round_record import read_rounds
from flows.run_record import load_run
from flows.wiring import connect
from pvar.config import PipelineConfig
from pvar.round_rules import RoundsConfig
from tests.integration.test_pipeline import tiny_settings
from tests.services.prefect_server import PrefectServer

pytestmark = [
    pytest.mark.slow,
    # Raised inside libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def pipeline(
    server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PipelineConfig:
    """Trainings that all gates pass, measured against the first model as well."""
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tiny = tiny_settings(tmp_path, "pvar").model_dump()
    tiny["evaluate"] |= {"opponent": "champion", "against_first": True, "divergence": True}
    return PipelineConfig.model_validate(tiny)


def interrupted_once(function: Callable[..., Any], at_call: int) -> Callable[..., Any]:
    """The function, but the process is ended instead of that call."""
    calls: list[None] = []

    def call(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == at_call:
            raise KeyboardInterrupt
        return function(*arguments)

    return call


def test_a_round_that_is_killed_after_its_promotion_does_not_train_from_its_own_result(
    pipeline: PipelineConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    read = interrupted_once(rounds_flow.read_round, at_call=2)
    monkeypatch.setattr(rounds_flow, "read_round", read)
    config = RoundsConfig(rounds=2, max_kl=1e6, max_ability_loss=1, pipeline=pipeline)
    with pytest.raises(KeyboardInterrupt):
        rounds_flow.rounds(config)
    wiring = connect()
    store = wiring.store
    champion = wiring.registry.champion("pvar")
    assert champion is not None
    assert champion.version == 2

    result = rounds_flow.rounds(config)
    assert result.end is not None
    assert result.end.rule == "rounds"
    first, second = (load_run(store, each.run) for each in result.rounds)
    assert {node.state for node in second.nodes} == {"reused"}
    trained = next(node.artifact for node in first.nodes if node.name == "train")
    assert second.config.policy == f"artifact:{trained}#{trained}"
    assert second.config.sample.seed == first.config.sample.seed + 1
    assert wiring.registry.champion("pvar") == champion
    assert [each.version for each in result.rounds] == [1, 2]
    assert all(each.promoted and each.pool.mean for each in result.rounds)
    assert all(each.kl_since_first is not None for each in result.rounds)
    assert all(each.first_win_rate is not None for each in result.rounds)
    assert result.rounds[0].kl_since_first != result.rounds[1].kl_since_first
    assert result.rounds[0].pool.scales == result.rounds[1].pool.scales

    monkeypatch.setattr("flows.temporary_server.temporary_server", nullcontext)  # there is one
    preset = tmp_path / "rounds.yaml"
    preset.write_text(json.dumps(pipeline.model_dump(mode="json")))  # JSON is YAML
    assert command.rounds(preset=str(preset), rounds=2, as_json=True) == DONE
    assert json.loads(capsys.readouterr().out) == json.loads(result.model_dump_json())
    command.rounds(preset=str(preset), rounds=2)
    shown = capsys.readouterr().out
    assert "ended: 2 rounds have ended, rounds is 2" in shown
    assert f"report: {store.uri}/rounds/pvar/rounds.html" in shown
    page = store.read("rounds/pvar/rounds.html").decode()
    assert "2 of 2 rounds promoted a model" in page
    assert [record.number for record in read_rounds(store, "pvar")] == [1, 2]
