"""The argument by which a model of transformers takes the cache of earlier tokens."""

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def cache_argument(model: "PreTrainedModel") -> str:
    """`cache` since transformers 5.24, and `past_key_values` before and in models of others."""
    names = inspect.signature(type(model).forward).parameters
    return "cache" if "cache" in names else "past_key_values"
