"""What MLflow shows of a registered version, and how it loads a folder."""

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from infra.transformers_flavor import task_of, write_flavor
from infra.version_description import describe_version

TAGS = {
    "pvar.source": "pool.jsonl",
    "pvar.num_pairs": "412",
    "pvar.method": "dpo",
    "pvar.strategy": "top",
    "pvar.budget": "fraction=0.1",
    "pvar.policy": "abc",
    "pvar.opponent": "org/start#abc",
    "pvar.judge": "afinn",
    "pvar.num_judged": "120",
    "pvar.gate": "failed",
    "pvar.gate_reasons": "win_rate_lower is 0.4821, its bound is 0.5",
    "pvar.gate_note": "ability not measured: no ability questions; the judged answers are random",
    "pvar.look": "look 3 at this exam, level 0.0034 of 0.05",
    "pvar.win_rate": "0.5620",
    "pvar.win_rate_lower": "0.4821",
    "pvar.win_rate_upper": "0.6301",
    "pvar.coverage": "nan",
    "pvar.first.win_rate": "0.7000",
    "pvar.first.win_rate_lower": "0.6000",
    "pvar.first.win_rate_upper": "nan",
    "pvar.arena.difference": "1.5000",
    "pvar.arena.difference_lower": "-0.2500",
    "pvar.arena.difference_upper": "3.2500",
}


def test_a_description_says_training_results_gate_limits_and_loading() -> None:
    text = describe_version("mine", 4, "train/ab12", TAGS, "text-generation")
    assert text.startswith("**mine, version 4**: the gate failed.\n")
    assert (
        "412 pairs of `pool.jsonl`, of prompts selected by `top` (fraction=0.1), with dpo, "
        "starting from `org/start`. Its artifact is `train/ab12`"
    ) in text
    assert "| win rate | 56.2 % | 48.2 % to 63.0 % |" in text
    assert "| win rate, against the first model | 70.0 % | 60.0 % to unknown |" in text
    assert "| arena: difference | 1.5 | -0.25 to 3.25 |" in text
    assert "coverage" not in text  # missing, and without an interval
    assert "Failed. win_rate_lower is 0.4821, its bound is 0.5." in text
    assert "This was look 3 at this exam, level 0.0034 of 0.05." in text
    assert "- Ability not measured: no ability questions; the judged answers are random.\n" in text
    assert "- The judge `afinn` is a sentiment lexicon" in text
    assert 'mlflow.transformers.load_model("models:/mine/4")' in text


def test_a_version_of_which_little_is_known_is_described_without_guesses() -> None:
    text = describe_version("mine", 1, "train/ab12", {}, None)
    assert "Results" not in text
    assert "Gate" not in text
    assert "load_model" not in text
    assert 'download_artifacts("models:/mine/1")' in text


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("Qwen3ForSequenceClassification", "text-classification"),
        ("BertModel", None),
    ],
)
def test_mlflow_is_told_what_a_folder_is(
    architecture: str, task: str | None, tmp_path: Path
) -> None:
    folder, beside = tmp_path / "model", tmp_path / "beside"
    folder.mkdir(), beside.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    assert task_of(folder) is None  # no tokenizer
    (folder / "tokenizer.json").write_text("{}")
    assert task_of(folder) == task
    assert write_flavor(folder, beside) == (task is not None)
    if task is None:
        assert list(beside.iterdir()) == []
    else:
        flavor = yaml.safe_load((beside / "MLmodel").read_text())["flavors"]["transformers"]
        assert (flavor["task"], flavor["pipeline_model_type"]) == (task, architecture)
        assert (beside / "components" / "tokenizer" / "tokenizer.json").exists()


def test_the_version_of_transformers_is_the_models_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that promotes has none installed: the image pvar:cpu."""

    def not_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_installed)
    monkeypatch.setitem(sys.modules, "transformers", None)
    config = {"architectures": ["LlamaForCausalLM"], "transformers_version": "5.16.1"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "beside").mkdir()
    assert write_flavor(tmp_path, tmp_path / "beside")
    flavor = yaml.safe_load((tmp_path / "beside" / "MLmodel").read_text())["flavors"]
    assert flavor["transformers"]["transformers_version"] == "5.16.1"


def test_a_folder_that_is_no_model_is_not_described(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    for config in ("", "[]", "{}", '{"architectures": []}', '{"architectures": null}'):
        (tmp_path / "config.json").write_text(config)
        assert task_of(tmp_path) is None
