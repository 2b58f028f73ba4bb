"""Attention of one new token per row over its cache, for models with grouped-query attention.

transformers copies the keys and values of a layer for every query head that shares them before it
calls PyTorch's attention. If each row has one query, the heads of a group can be passed as the
queries of one head instead, which gives the same result without a copy.
`tests/benchmarks/sampling_on_cpu.py` measures the saving.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

GROUPED = "pvar_grouped"
"""Name of this implementation in transformers (`attn_implementation`)."""


def register_grouped_attention() -> str:
    """Register the implementation with transformers; returns its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)
    return GROUPED


def grouped_attention(
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    **options: Any,
) -> "tuple[torch.Tensor, None]":
    """Attend as transformers' `sdpa` does, which also handles prompts and all other cases.

    query: (rows, heads, 1, size); key, value: (rows, heads / groups, tokens, size); mask:
    (rows, 1, 1, tokens). Returns (rows, 1, heads, size).
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, num_queries, size = query.shape
    groups = heads // key.shape[1]
    if num_queries > 1 or groups == 1 or options.get("position_bias") is not None:
        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return attended
    output = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, heads // groups, groups, size),
        key,
        value,
        attn_mask=attention_mask,
        scale=options.get("scaling"),
    )
    return output.reshape(rows, 1, heads, value.shape[-1]), None
