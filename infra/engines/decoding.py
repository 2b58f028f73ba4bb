"""Ancestral sampling of K answers per prompt with a causal language model of transformers.

Each prompt is prefilled once and its key–value cache is then repeated K times, whereas `generate`
prefills it K times. Finished rows are dropped from the batch.

Axes: P prompts, K answers per prompt, R ≤ P·K unfinished rows, T prompt tokens, V vocabulary.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from infra.cache_argument import cache_argument

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

BLOCK = 256
"""Entries of the vocabulary that are summed before one of them is drawn."""

MIN_DROPPED_SHARE = 0.1
"""Fraction of finished rows in a batch at which they are dropped, which copies the cache."""


class Sampling(NamedTuple):
    """How the next token is drawn."""

    num_responses: int
    max_new_tokens: int
    temperature: float
    top_p: float
    end_ids: Collection[int]


def decode(
    model: "PreTrainedModel", token_ids: "torch.Tensor", mask: "torch.Tensor", how: Sampling
) -> list[list[int]]:
    """Sample with torch's global generator; P·K lists of new token ids, including the end token.

    token_ids, mask: (P, T), padded on the left. Answers of one prompt are next to each other.
    """
    import torch

    ends = torch.tensor(sorted(how.end_ids), device=model.device)
    with torch.inference_mode():
        logits, cache = _read_prompts(model, token_ids, mask, how.num_responses)
        mask = mask.repeat_interleave(how.num_responses, dim=0)
        answers: list[list[int]] = [[] for _ in range(len(mask))]
        rows = torch.arange(len(mask))
        going_on = torch.ones(len(mask), dtype=torch.bool)
        for step in range(how.max_new_tokens):
            tokens = draw(logits, how.temperature, how.top_p)
            for row, token, goes_on in zip(
                rows.tolist(), tokens.tolist(), going_on.tolist(), strict=True
            ):
                if goes_on:
                    answers[row].append(token)
            going_on &= ~torch.isin(tokens, ends).cpu()
            num_ended = len(rows) - int(going_on.sum())
            if num_ended == len(rows) or step == how.max_new_tokens - 1:
                break
            if num_ended >= MIN_DROPPED_SHARE * len(rows):
                kept = going_on.nonzero().squeeze(1)
                cache.batch_select_indices(kept.to(model.device))
                rows, tokens, mask = rows[kept], tokens[kept], mask[kept]
                going_on = going_on[kept]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            output = model(
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=mask.sum(dim=1, keepdim=True) - 1,
                use_cache=True,
                **{cache_argument(model): cache},
            )
            logits = output.logits[:, -1]
    return answers


def _read_prompts(
    model: "PreTrainedModel", token_ids: "torch.Tensor", mask: "torch.Tensor", num_responses: int
) -> "tuple[torch.Tensor, Any]":
    """Logits of the first new token, (P·K, V), and the cache for P·K rows."""
    output = model(
        input_ids=token_ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    output.past_key_values.batch_repeat_interleave(num_responses)
    logits = output.logits[:, -1].repeat_interleave(num_responses, dim=0)
    return logits, output.past_key_values


def draw(logits: "torch.Tensor", temperature: float, top_p: float) -> "torch.Tensor":
    """One token per row, (R,), by inverting the cumulative distribution; in float32.

    With top_p < 1 the distribution is cut to the smallest set of tokens that has that probability.
    """
    import torch

    if top_p == 1:
        highest = logits.float().amax(dim=-1, keepdim=True)
        return _invert(((logits.float() - highest) / temperature).exp_())
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    probabilities, order = probabilities.sort(dim=-1, descending=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    return order.gather(-1, _invert(probabilities)[:, None]).squeeze(-1)


def _invert(weights: "torch.Tensor") -> "torch.Tensor":
    """One index per row, (R,), with a probability proportional to its weight, (R, V).

    A block of `BLOCK` entries is drawn by the blocks' sums, then an entry of the block: sums are
    much faster than a cumulative sum over the vocabulary, and smaller sums round less.
    """
    import torch

    num_rows, num_weights = weights.shape
    padded = torch.nn.functional.pad(weights, (0, -num_weights % BLOCK))
    blocks = padded.view(num_rows, -1, BLOCK)
    block, threshold = find(blocks.sum(dim=-1), None)
    within = blocks[torch.arange(num_rows, device=weights.device), block]
    entry, _ = find(within, threshold)
    return block * BLOCK + entry


def find(
    weights: "torch.Tensor", threshold: "torch.Tensor | None"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """The entry of each row in which the threshold (default: random) falls, and the offset in it.

    An entry of weight 0 is never returned: if rounding puts a threshold at or above the total, or
    below 0, the last or first entry with a positive weight is used.
    """
    import torch

    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1:]
    if threshold is None:
        threshold = torch.rand_like(total) * total
    threshold = threshold.clamp(min=0)  # what is left in a block may be rounded below it
    last = (weights > 0).int().mul(torch.arange(weights.shape[-1], device=weights.device) + 1)
    found = torch.searchsorted(cumulative, threshold, right=True)
    found = torch.minimum(found, last.amax(dim=-1, keepdim=True) - 1)
    rest = threshold - (cumulative - weights).gather(-1, found)
    return found.squeeze(-1), rest
