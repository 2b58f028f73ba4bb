"""Pinning: references become digests, and digests tell what names do not."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.pinning import pin, pin_reference
from flows.wiring import Wiring
from infra.sources import pin_source
from pvar.artifacts import Manifest
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, InputError, ModelError
from pvar.references import Pinned
from pvar.row_counts import RowCounts
from tasks.engine.artifact import ArtifactKeys
from tasks.graph import plan_nodes, reward_keys
from tests.artifacts import put_artifact
from tests.services.registry import empty_database
from tests.workflow import fake_settings, open_wiring, start_workflow, write_prompts


def test_a_source_that_is_replaced_after_pinning_is_named_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    flow = start_workflow(tmp_path)
    pinned = Pinned.parse(flow.config.ingest.source)
    other = write_prompts(tmp_path / "other.jsonl", ["a day at sea", "a night on a train"])
    now = pin_source(str(other), tmp_path).rpartition("#")[2]
    other.replace(pinned.location)
    with pytest.raises(InputError, match=rf"was {pinned.digest} when .* and is {now} now"):
        flow.make("ingest")
    assert not list(flow.store.list(f"{flow.nodes['ingest'].keys.root}/shards/"))


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


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with MLflow's tables, which take seconds to make."""
    shutil.copy(empty_database(), tmp_path / "mlflow.db")
    return tmp_path


FIRST = "bundled:smollm2-135m-instruct"
MISSING = "0123456789"
"""Begins no digest."""


def from_champion(home: Path, **changes: Any) -> PipelineConfig:
    settings = fake_settings(
        write_prompts(home / "prompts.jsonl"),
        **{"policy": "champion", "policy_if_none": FIRST, "evaluate.opponent": "champion"},
        **changes,
    )
    return PipelineConfig.model_validate(settings)


def put_trained(config: PipelineConfig, wiring: Wiring) -> ArtifactKeys:
    """The recipe and the manifest of the model that the pinned configuration trains."""
    node = plan_nodes(config)["train"]
    wiring.store.write(node.keys.recipe, node.recipe.to_json())
    manifest = Manifest(
        stage="train", version=1, digest=node.keys.digest, inputs={}, shards=(), summary={},
        row_counts=RowCounts(rows_in=0, rows_out=0, rejected={}),
    )  # fmt: skip
    wiring.store.write(node.keys.manifest, manifest.to_json())
    return node.keys


def promote(config: PipelineConfig, wiring: Wiring, model: Path) -> str:
    """Make the model of the pinned configuration the champion."""
    keys, registry = put_trained(config, wiring), wiring.registry
    tags = {"pvar.opponent": config.evaluate.opponent}
    version = registry.register("pvar", model, keys.root, tags)
    registry.promote(version, instead_of=registry.champion("pvar"), reason="better")
    return f"artifact:{keys.root}#{keys.root}"


def test_a_model_of_the_store_is_named_by_first_characters(tmp_path: Path) -> None:
    wiring = open_wiring(tmp_path)
    one, other = (
        put_artifact(wiring.store, "train", config={"policy": name}) for name in ("a", "b")
    )
    for text in (one.root[:12], one.digest[:6], one.root):
        assert pin_reference(f"artifact:{text}", wiring) == f"artifact:{one.root}#{one.root}"
    with pytest.raises(InputError, match=f"'train/{MISSING}' is not in .*there are train/"):
        pin_reference(f"artifact:train/{MISSING}", wiring)
    assert other.digest[0] != one.digest[0]
    with pytest.raises(ModelError, match="does not name a trained model"):
        pin_reference("artifact:train/", wiring)


@pytest.mark.slow  # MLflow
def test_each_round_starts_from_the_champion_and_the_first_from_the_named_model(
    home: Path, model: Path
) -> None:
    wiring = open_wiring(home)
    first = pin(from_champion(home), wiring)
    assert first.policy == first.evaluate.opponent == first.first_model
    assert first.policy.startswith(f"{FIRST}#")

    champion = promote(first, wiring, model)
    second = pin(from_champion(home, **{"train.seed": 1}), wiring)
    assert second.policy == second.evaluate.opponent == champion
    assert second.first_model == first.policy
    assert plan_nodes(second)["train"].keys != plan_nodes(first)["train"].keys


@pytest.mark.slow  # MLflow
def test_a_run_that_was_killed_after_its_promotion_starts_from_the_same_model_again(
    home: Path, model: Path
) -> None:
    wiring = open_wiring(home)
    first = pin(from_champion(home), wiring)
    promote(first, wiring, model)
    assert pin(from_champion(home), wiring) == first  # not from the model that it made itself

    second = pin(from_champion(home, **{"train.seed": 1}), wiring)
    promote(second, wiring, model)
    assert pin(from_champion(home, **{"train.seed": 1}), wiring) == second


@pytest.mark.slow  # MLflow
def test_after_a_rollback_the_next_round_starts_from_the_champion_before(
    home: Path, model: Path
) -> None:
    wiring = open_wiring(home)
    champion = promote(pin(from_champion(home), wiring), wiring, model)
    promote(pin(from_champion(home, **{"train.seed": 1}), wiring), wiring, model)
    wiring.registry.roll_back("pvar", reason="rude answers")
    assert pin(from_champion(home, **{"train.seed": 2}), wiring).policy == champion


def learning(home: Path, model: Path, **changes: Any) -> PipelineConfig:
    """A reward model that learns, and scores once it is promoted."""
    settings = fake_settings(
        write_prompts(home / "prompts.jsonl"),
        **{
            "score.reward_models": [{"kind": "classifier", "name": "learned", "model": "champion"}],
            "reward_training": {"model": str(model)},
            **changes,
        },
    )
    return PipelineConfig.model_validate(settings)


def reward_models_of(config: PipelineConfig) -> tuple[str, str, str]:
    """What scores, what would be replaced, and from what the training starts."""
    (scoring,) = config.score.reward_models
    assert scoring.kind == "classifier"
    assert config.reward_training is not None
    return scoring.model, config.reward_training.opponent, config.reward_training.model


@pytest.mark.slow  # MLflow
def test_a_reward_model_that_was_adopted_scores_the_next_run_and_not_its_own(
    home: Path, model: Path
) -> None:
    wiring = open_wiring(home)
    first = pin(learning(home, model), wiring)
    scoring, opponent, start = reward_models_of(first)
    assert scoring == opponent == start
    assert start.startswith(f"{model}#sha256-")

    keys = reward_keys(first)
    version = wiring.registry.register("pvar-reward", model, keys.root, {"pvar.opponent": opponent})
    wiring.registry.promote(version, instead_of=None, reason="gate passed")
    # The run was killed after that: the same command makes nothing else.
    assert pin(learning(home, model), wiring) == first

    # The store does not say (any more) on which labels the champion was trained.
    second = pin(learning(home, model, **{"reward_training.train": {"seed": 1}}), wiring)
    champion = f"models:/pvar-reward/1#{keys.root}"
    assert reward_models_of(second) == (champion, champion, start)
    assert pin(second, wiring) == second
    before, after = plan_nodes(first), plan_nodes(second)
    changed = {name for name in before if before[name].keys != after[name].keys}
    assert {"score-learned", "reward", "adopt"} <= changed
    assert not {"ingest", "sample"} & changed


def adopt(config: PipelineConfig, wiring: Wiring, model: Path) -> str:
    """Make the reward model of the pinned configuration the champion; it as a reference."""
    assert config.reward_training is not None
    nodes = plan_nodes(config)
    for node in (nodes["ingest"], nodes["reward"]):
        wiring.store.write(node.keys.recipe, node.recipe.to_json())
    keys, registry = nodes["reward"].keys, wiring.registry
    tags = {"pvar.opponent": config.reward_training.opponent}
    version = registry.register("pvar-reward", model, keys.root, tags)
    champion = registry.champion("pvar-reward")
    registry.promote(version, instead_of=champion, reason="gate passed")
    return f"models:/pvar-reward/{version.version}#{keys.root}"


@pytest.mark.slow  # MLflow
def test_no_run_of_a_batch_is_scored_by_a_model_that_learned_its_labels(
    home: Path, model: Path
) -> None:
    wiring = open_wiring(home)
    other = write_prompts(home / "other.jsonl", ["a day at sea", "a night on a train"])
    first = pin(learning(home, model), wiring)
    start = reward_models_of(first)[0]
    one = adopt(first, wiring, model)

    # The same batch again, with what changes another reward model: it would replace the champion.
    def again(seed: int) -> PipelineConfig:
        return pin(learning(home, model, **{"reward_training.train": {"seed": seed}}), wiring)

    assert reward_models_of(again(1)) == (start, one, start)
    two = adopt(again(1), wiring, model)
    assert reward_models_of(again(2)) == (start, two, start)
    split = {"ingest.eval_fraction": 0.3}
    assert reward_models_of(pin(learning(home, model, **split), wiring)) == (start, two, start)
    # Other batches are scored by it, and their own runs by what came before them.
    source = {"ingest.source": str(other)}
    third = pin(learning(home, model, **source), wiring)
    assert reward_models_of(third)[0] == two
    adopt(third, wiring, model)
    source["reward_training.train"] = {"seed": 3}
    assert reward_models_of(pin(learning(home, model, **source), wiring))[0] == two


@pytest.mark.slow  # MLflow
def test_the_scoring_champion_does_not_depend_on_the_opponent(home: Path, model: Path) -> None:
    wiring = open_wiring(home)
    other = write_prompts(home / "other.jsonl", ["a day at sea", "a night on a train"])
    champion = adopt(pin(learning(home, model), wiring), wiring, model)
    compared = shutil.copytree(model, home / "compared")
    (compared / "model.safetensors").write_bytes(b"other weights")
    changes = {"ingest.source": str(other), "reward_training.opponent": str(compared)}
    scoring, opponent, _ = reward_models_of(pin(learning(home, model, **changes), wiring))
    assert scoring == champion
    assert opponent.startswith(f"{compared}#sha256-")
