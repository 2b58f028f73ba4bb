"""Embeddings of prompts under a model: the mean of the last hidden states over the prompt's tokens.

The tokens are those that a response is sampled after (`pvar.chat.prompt_token_ids`), so the
template's own tokens are in the mean, too. The last hidden state is what the output layer reads,
after the final normalisation. One forward pass of the prompt, without the output layer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.training.logps import TOKENS_PER_BATCH, PromptAnswer, padded_batches


def embed_prompts(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    *,
    autocast: bool,
    advance: Callable[[int], None],
) -> npt.NDArray[np.float32]:
    """Embeddings (num_prompts, num_dimensions) of token ids, in their order.

    model: a causal language model of transformers. `advance` is given the size of each batch.
    """
    import torch

    rows = sorted({PromptAnswer(ids, ()) for ids in prompts}, key=lambda row: -len(row.prompt))
    found: dict[tuple[int, ...], npt.NDArray[np.float32]] = {}
    with (
        torch.inference_mode(),
        torch.autocast(model.device.type, torch.bfloat16, enabled=autocast),
    ):
        for batch in padded_batches(rows, TOKENS_PER_BATCH[model.device.type]):
            embeddings = _mean_states(model, [row.prompt for row in batch]).cpu().numpy()
            found.update(zip((row.prompt for row in batch), embeddings, strict=True))
            advance(len(batch))
    return np.stack([found[ids] for ids in prompts])


def _mean_states(model: Any, prompts: Sequence[tuple[int, ...]]) -> Any:
    """(num_prompts, num_dimensions) float32; padding on the right is left out of the means."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
    attended = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts])
    ids, attended = ids.to(model.device), attended.to(model.device)
    states = model.base_model(input_ids=ids, attention_mask=attended, use_cache=False)[0].float()
    return (states * attended[..., None]).sum(dim=1) / attended.sum(dim=1, keepdim=True)
