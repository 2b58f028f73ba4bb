"""Pinning: references become digests, and digests tell what names do not."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.pinning import pin
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from tests.workflow import fake_settings, open_wiring, write_prompts


def reward_model(folder: Path) -> dict[str, Any]:
    return {"kind": "classifier", "name": folder.name, "model": str(folder)}


def config(home: Path, *, selects: Path, judges: Path, **changes: Any) -> PipelineConfig:
    settings = fake_settings(
        write_prompts(home / "prompts.jsonl"),
        **{
            "score.reward_models": [reward_model(selects)],
            "evaluate.judge": {"kind": "reward_model", "reward_model": reward_model(judges)},
            **changes,
        },
    )
    return PipelineConfig.model_validate(settings)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What pinning looks at: the files of a folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_copy_of_the_selections_reward_model_may_not_judge(tmp_path: Path, model: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    wiring = open_wiring(tmp_path)
    with pytest.raises(ConfigError, match=r"also in score\.reward_models.*circular"):
        pin(config(tmp_path, selects=model, judges=copy), wiring)

    allowed = {"evaluate.allow_circular_judge": True}
    assert pin(config(tmp_path, selects=model, judges=copy, **allowed), wiring)
    (copy / "model.safetensors").write_bytes(b"other weights")
    assert pin(config(tmp_path, selects=model, judges=copy), wiring)


def test_an_implicit_reward_of_one_model_twice_is_refused(tmp_path: Path, model: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    implicit = {"kind": "implicit", "policy": str(model), "reference": str(copy)}
    given = config(tmp_path, selects=model, judges=copy)
    settings = given.model_dump() | {"score": {"reward_models": [implicit]}}
    with pytest.raises(ConfigError, match=r"policy \(.*model\) and reference \(.*copy\).* same"):
        pin(PipelineConfig.model_validate(settings), open_wiring(tmp_path))


@pytest.mark.slow  # MLflow sets up its database
def test_a_judge_that_is_a_model_is_pinned_beside_a_champion(tmp_path: Path, model: Path) -> None:
    judge = shutil.copytree(model, tmp_path / "judge")
    (judge / "model.safetensors").write_bytes(b"other weights")
    wiring = open_wiring(tmp_path)
    champion = wiring.registry.register("assistant", model, "train/0123456789abcdef", {})
    wiring.registry.promote(champion, instead_of=None, reason="the first")
    changes = {"evaluate.opponent": "champion", "promote": {"model_name": "assistant"}}
    pinned = pin(config(tmp_path, selects=model, judges=judge, **changes), wiring)
    assert pinned.evaluate.opponent == "models:/assistant/1#train/0123456789abcdef"
    assert pinned.evaluate.judge.kind == "reward_model"
    assert pinned.evaluate.judge.reward_model.kind == "classifier"
    assert pinned.evaluate.judge.reward_model.model.startswith(f"{judge}#sha256-")
