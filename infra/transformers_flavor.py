"""MLflow's description of a model folder (`MLmodel`), with which `mlflow.transformers` loads it.

MLflow's own writer loads a model and saves it again. Here only the description is written, and the
tokenizer once more, where MLflow looks for it: the weights stay as they are.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

MLMODEL = "MLmodel"
COMPONENTS = "components"
TOKENIZER = "tokenizer"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
    "chat_template.jinja", "config.json",
)  # fmt: skip
"""Files of a tokenizer, and the configuration that tells its class."""


class _Task(NamedTuple):
    name: str
    pipeline: str


TASKS = {
    "ForCausalLM": _Task("text-generation", "TextGenerationPipeline"),
    "LMHeadModel": _Task("text-generation", "TextGenerationPipeline"),
    "ForSequenceClassification": _Task("text-classification", "TextClassificationPipeline"),
}
"""End of the name of an architecture → what its pipeline does."""


def task_of(folder: Path) -> str | None:
    """The task of the model's pipeline; None if MLflow cannot load the folder."""
    task = _task(_architecture(folder))
    return None if task is None else task.name


def write_flavor(folder: Path, target: Path) -> bool:
    """Write the files that MLflow needs beside those of the folder; False if it cannot load it."""
    architecture = _architecture(folder)
    task = _task(architecture)
    if task is None:
        return False
    # What promotes a model needs no transformers: the model says which version saved it.
    saved_by = _configuration(folder).get("transformers_version")
    from mlflow.models import Model

    described = Model()
    described.add_flavor(
        "transformers",
        task=task.name,
        instance_type=task.pipeline,
        framework="pt",
        pipeline_model_type=architecture,
        model_binary=".",
        components=[TOKENIZER],
        tokenizer_type="AutoTokenizer",
        code=None,
        **({} if saved_by is None else {"transformers_version": str(saved_by)}),
    )
    described.save(str(target / MLMODEL))
    copy = target / COMPONENTS / TOKENIZER
    copy.mkdir(parents=True)
    for path in _existing(folder, TOKENIZER_FILES):
        shutil.copy2(path, copy / path.name)
    return True


def _existing(folder: Path, names: Iterable[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _architecture(folder: Path) -> str | None:
    """The model's class; None if the folder is not a model with a tokenizer."""
    if not _existing(folder, ("tokenizer_config.json", "tokenizer.json")):
        return None
    match _configuration(folder):
        case {"architectures": [str(architecture), *_]}:
            return architecture
    return None


def _configuration(folder: Path) -> dict[str, Any]:
    """The model's config.json; empty if it cannot be read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _task(architecture: str | None) -> _Task | None:
    return next(
        (task for end, task in TASKS.items() if architecture and architecture.endswith(end)), None
    )
