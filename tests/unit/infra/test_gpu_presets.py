"""The presets for GPUs, as far as a machine without one can run them.

Each is planned as it stands. And each runs through every stage with its models replaced by tiny
ones of the same architecture, transformers instead of vLLM, one process instead of eight, and few
short prompts in UltraFeedback's form; all other settings are the preset's own.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import (
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from flows.pinning import pin
from infra import presets
from infra.presets import load_config, preset_names
from pvar.config import PipelineConfig
from pvar.records import Pair, Response
from pvar.references import find_references, is_pinned
from tasks.graph import plan_nodes
from tasks.stages.pair import PAIRS
from tasks.stages.sample import RESPONSES
from tests.unit.infra.tiny_models import (
    save_classifier,
    save_language_model,
    save_tokenizer,
    tiny_config,
)
from tests.workflow import TOPICS, Workflow, open_wiring

FOR_GPUS = [name for name in preset_names() if name != "demo"]


def tree_of(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((files(presets) / f"{name}.yaml").read_text())
    return tree


def with_models(value: Any, models: Mapping[str, str]) -> Any:
    """A part of a preset with other texts in place of these."""
    if isinstance(value, dict):
        return {key: with_models(each, models) for key, each in value.items()}
    if isinstance(value, list):
        return [with_models(each, models) for each in value]
    return models.get(value, value) if isinstance(value, str) else value


def names_on_the_hub(name: str) -> list[str]:
    """What the preset loads from the Hub, as written."""
    references = [each.text for each in find_references(load_config(name))]
    return [text for text in references if text != "champion"]


def test_there_is_a_preset_for_each_size_of_machine() -> None:
    assert FOR_GPUS == ["gpu-24gb", "gpu-80gb", "gpu-80gb-lora", "gpu-8x80gb"]


@pytest.mark.parametrize("name", FOR_GPUS)
def test_a_preset_says_for_which_machine_it_is_and_that_it_was_not_run(name: str) -> None:
    text = (files(presets) / f"{name}.yaml").read_text()
    assert "GB" in presets.preset_description(name)
    assert "Not run: no such hardware here" in text
    assert "bytes" in text  # how the memory was estimated


@pytest.mark.parametrize("name", FOR_GPUS)
def test_a_preset_is_planned_as_it_stands(name: str) -> None:
    commit = "0" * 40
    pinned = {text: f"{text}@{commit}#{text}@{commit}" for text in names_on_the_hub(name)}
    tree = with_models(tree_of(name), pinned)
    tree["evaluate"]["opponent"] = tree["policy"]  # no model is promoted yet
    config = PipelineConfig.model_validate(tree)
    assert all(is_pinned(each.text) for each in find_references(config))
    assert list(plan_nodes(config)) == [
        "ingest",
        "sample",
        "score-skywork",
        "select",
        "pair",
        "train",
        "answers-opponent",
        "answers-challenger",
        "evaluate",
        "promote",
    ]


@pytest.mark.parametrize("name", FOR_GPUS)
def test_a_preset_uses_vllm_and_every_gpu(name: str) -> None:
    config = load_config(name)
    runtime = config.runtime
    assert config.sample.engine == config.evaluate.answers.engine == "vllm"
    assert config.train.max_length_tokens >= (
        config.sample.max_prompt_tokens + config.sample.max_new_tokens
    )
    num_gpus = 8 if name == "gpu-8x80gb" else 1
    assert runtime.num_processes == runtime.vllm.tensor_parallel_size == num_gpus
    assert (runtime.sharding is not None) == (num_gpus > 1)


@pytest.mark.parametrize("name", FOR_GPUS)
def test_the_judge_that_a_comment_recommends_can_be_set(name: str) -> None:
    lines = (files(presets) / f"{name}.yaml").read_text().splitlines()
    (judge,) = (line.partition("judge: ")[2] for line in lines if line.startswith("  #   judge: "))
    assert load_config(name, [f"evaluate.judge={judge}"]).evaluate.judge.kind == "alpaca_eval"


def save(model: type[PreTrainedModel], config: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    model(config).save_pretrained(folder)
    return save_tokenizer(folder)


SIZE = {
    key: value
    for key, value in tiny_config().to_dict().items()
    if key.endswith(("_size", "_token_id")) or key.startswith("num_")
}
LLAMA = partial(save_language_model, seed=1)
QWEN2 = partial(save, Qwen2ForCausalLM, Qwen2Config(**SIZE, initializer_range=0.3))
QWEN3_REWARD = partial(
    save,
    Qwen3ForSequenceClassification,
    Qwen3Config(**SIZE, head_dim=8, num_labels=1, initializer_range=0.3),
)
TINY: Mapping[str, Callable[[Path], Path]] = {
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN2,
    "Qwen/Qwen2.5-3B-Instruct": QWEN2,
    "allenai/Llama-3.1-Tulu-3-8B-SFT": LLAMA,
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B": QWEN3_REWARD,
    "Skywork/Skywork-Reward-V2-Qwen3-8B": QWEN3_REWARD,
    "sfairXC/FsfairX-LLaMA3-RM-v0.1": partial(save_classifier, seed=5),
}
"""Models of the presets → how a tiny one of the same architecture is made."""


def write_ultrafeedback(path: Path) -> Path:
    """Rows as HuggingFaceH4/ultrafeedback_binarized has them: answers that repeat the prompt."""
    with path.open("w") as file:
        for topic in TOPICS:
            user = {"role": "user", "content": f"Describe {topic}."}
            answers = {
                f"score_{each}": score for each, score in (("chosen", 8.0), ("rejected", 5.5))
            }
            for each in ("chosen", "rejected"):
                answers[each] = [user, {"role": "assistant", "content": f"{each}: {topic}"}]
            row = {"prompt": user["content"], "prompt_id": "0", **answers}
            file.write(json.dumps(row) + "\n")
    return path


def tiny_preset(name: str, folder: Path) -> PipelineConfig:
    """The preset for this machine."""
    tree = tree_of(name)
    loaded = [text for text in dict.fromkeys(names_on_the_hub(name)) if not text.startswith("hub:")]
    folders = {text: str(TINY[text](folder / Path(text).name)) for text in loaded}
    tree = with_models(tree, folders)
    tree["ingest"] |= {
        "source": str(write_ultrafeedback(folder / "ultrafeedback.jsonl")),
        "eval_fraction": 0.4,
    }
    small = {"engine": "transformers", "max_new_tokens": 12, "max_prompt_tokens": 256}
    tree["sample"] |= small
    tree["evaluate"]["answers"] |= small
    tree["select"]["keep_truncated"] = True  # models with random weights never end an answer
    tree["promote"] |= {"mode": "never"}
    tree["runtime"] |= {
        "num_processes": 1,
        "sharding": None,
        "scoring_backend": "transformers",
        "vllm": {},
    }
    return PipelineConfig.model_validate(tree)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FOR_GPUS)
def test_a_preset_runs_through_every_stage(tmp_path: Path, name: str) -> None:
    config = tiny_preset(name, tmp_path)
    wiring = open_wiring(tmp_path / "home")
    workflow = Workflow(pin(config, wiring), wiring)
    for node in workflow.nodes:
        workflow.make(node)

    prompts = workflow.artifact("ingest").manifest.summary
    assert prompts["num_annotated"] == len(TOPICS)
    responses = workflow.artifact("sample").rows(RESPONSES, Response)
    assert len(list(responses)) == prompts["num_train_prompts"] * config.sample.num_responses
    pairs = list(workflow.artifact("pair").rows(PAIRS, Pair))
    assert pairs
    assert workflow.artifact("train").manifest.row_counts.rows_out == len(pairs)
    evaluated = workflow.artifact("evaluate").manifest.summary
    assert evaluated["coverage"] == 1.0
    promoted = workflow.artifact("promote").manifest.summary
    assert (promoted["version"], promoted["promoted"]) == (1, False)
