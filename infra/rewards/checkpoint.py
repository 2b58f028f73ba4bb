"""Load complete model folders from safetensors, without running their code."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pvar.errors import ModelError
from pvar.number_format import NumberFormat

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Checkpoint(NamedTuple):
    """A loaded model folder."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    other_tensors: frozenset[str]
    """Names of tensors in the folder that are not in the model: a reward model's head."""


def load_checkpoint(folder: Path, auto_class: Any, dtype: NumberFormat) -> Checkpoint:
    """Load a model from safetensors, without running code from the folder, and its tokenizer.

    Raises ModelError if the folder cannot be loaded or does not hold all weights of the model.
    """
    import torch
    from transformers import AutoTokenizer

    try:
        with _without_warnings():
            model, info = auto_class.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the model in {folder} cannot be loaded: {error}; it must be a Hugging Face folder "
            "with safetensors weights and a tokenizer, and without custom code"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of a {type(model).__name__}, for example "
            f"{missing[0]}; the files are incomplete or belong to another model: download them "
            "again, or use another model"
        )
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return Checkpoint(model, tokenizer, frozenset(info["unexpected_keys"]))


def max_context_tokens(model: "PreTrainedModel", limit: int) -> int:
    """`limit`, or the model's context length if that is shorter."""
    context = getattr(model.config, "max_position_embeddings", None)
    return limit if context is None else min(limit, context)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress transformers' warning about unused tensors, which here are the reward head."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
