"""A decoder without its head, which computes the hidden states of rows.

Rows are padded on the right with an attention mask, and a row's states are selected by its length.
So padding with the end-of-sequence id (SmolLM2: both are 2) cannot change which state is scored.
In transformers' own sequence classifiers it can, because they search for the last id that is not
padding.

A prompt with several answers is run once: its keys and values are cached and used for each batch of
answers. Models with sliding windows or recurrent states, whose caches do not hold the whole prompt,
run every conversation in full.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from infra.cache_argument import cache_argument
from infra.rewards.batching import out_of_memory, run_in_batches
from infra.rewards.score_rows import Ids, ScoreRow
from pvar.errors import ScoringError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Reader = Callable[[Sequence[ScoreRow], Sequence["torch.Tensor"]], "torch.Tensor"]
"""Maps rows and their hidden states to one float32 value per row, shape (num_rows,).

The states of a row are those of its own tokens, shape (len(row.own), hidden_size)."""

TOKENS_PER_BATCH = {"cuda": 16384, "cpu": 1024}
"""A GPU is fastest with large batches, a CPU while a batch's activations fit its caches (16384
tokens took twice as long as 1024, see tests/benchmarks/README.md)."""

HELD_PROMPT_TOKENS = 8192
"""Prompt tokens whose keys and values are cached at once (1 GB for an 8B model in bfloat16). With
many prompts, there are many answers to sort by length."""

PromptState = tuple[tuple["torch.Tensor", "torch.Tensor"], ...]
"""Keys and values of a prompt in each layer, both of shape (length, num_heads, head_size)."""


@dataclass(frozen=True)
class Backbone:
    """A decoder whose output is `last_hidden_state`."""

    model: "PreTrainedModel"
    padding_id: int
    """Any id works: padding is masked and never read."""
    shares_prompts: bool
    """Whether a prompt's keys and values can be reused for each of its answers."""
    tokens_per_batch: int
    """Padded tokens of one batch, halved when memory runs out."""


def make_backbone(
    model: "PreTrainedModel", padding_id: int | None, tokens_per_batch: int | None
) -> Backbone:
    """Wrap a decoder. The kind of its cache determines whether prompts are shared.

    Without `tokens_per_batch` the default of the device is used (`TOKENS_PER_BATCH`).
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    layers = DynamicCache(config=model.config).layers
    return Backbone(
        model,
        padding_id or 0,
        all(type(layer) is DynamicLayer for layer in layers),
        tokens_per_batch or TOKENS_PER_BATCH[model.device.type],
    )


def evaluate(backbone: Backbone, rows: Iterable[ScoreRow], read: Reader) -> dict[ScoreRow, float]:
    """The result of `read` for each distinct row's hidden states.

    Raises ScoringError if a single row does not fit in memory.
    """
    import torch

    by_prompt: dict[Ids, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        by_prompt[row.shared if backbone.shares_prompts else ()].append(row)
    whole = by_prompt.pop((), [])
    try:
        with torch.inference_mode():
            return run_in_batches(
                whole,
                partial(_run_whole, backbone, read),
                sizes=lambda row: (len(row.shared) + len(row.own),),
                tokens_per_batch=backbone.tokens_per_batch,
            ) | run_in_batches(
                by_prompt,
                partial(_run_prompts, backbone, read, by_prompt),
                sizes=lambda prompt: (len(prompt),),
                tokens_per_batch=HELD_PROMPT_TOKENS,
            )
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise ScoringError(
            "a single conversation does not fit in memory; lower max_length_tokens of the reward "
            "model, or use a device with more memory"
        ) from error


def _run_whole(
    backbone: Backbone, read: Reader, batch: Sequence[ScoreRow]
) -> dict[ScoreRow, float]:
    ids, mask = pad_right([row.shared + row.own for row in batch], backbone)
    output = backbone.model(input_ids=ids, attention_mask=mask, use_cache=False)
    places = [slice(len(row.shared), len(row.shared) + len(row.own)) for row in batch]
    return _read(read, batch, places, output.last_hidden_state)


def _run_prompts(
    backbone: Backbone,
    read: Reader,
    by_prompt: Mapping[Ids, list[ScoreRow]],
    prompts: Sequence[Ids],
) -> dict[ScoreRow, float]:
    """All answers to some prompts, sorted by length, and these prompts."""
    states = run_in_batches(
        prompts,
        partial(_prompt_states, backbone),
        sizes=lambda prompt: (len(prompt),),
        tokens_per_batch=backbone.tokens_per_batch,
    )
    return run_in_batches(
        [row for prompt in prompts for row in by_prompt[prompt]],
        partial(_run_answers, backbone, read, states),
        sizes=lambda row: (len(row.own), len(row.shared)),
        tokens_per_batch=backbone.tokens_per_batch,
    )


def _prompt_states(backbone: Backbone, batch: Sequence[Ids]) -> dict[Ids, PromptState]:
    ids, mask = pad_right(batch, backbone)
    cache = backbone.model(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values
    layers = [(keys.transpose(1, 2), values.transpose(1, 2)) for keys, values, _ in cache]
    return {
        prompt: tuple(
            (keys[index, : len(prompt)], values[index, : len(prompt)]) for keys, values in layers
        )
        for index, prompt in enumerate(batch)
    }


def _run_answers(
    backbone: Backbone,
    read: Reader,
    states: Mapping[Ids, PromptState],
    batch: Sequence[ScoreRow],
) -> dict[ScoreRow, float]:
    import torch
    from transformers import DynamicCache

    _, prompt_mask = pad_right([row.shared for row in batch], backbone)
    ids, mask = pad_right([row.own for row in batch], backbone)
    by_layer = zip(*(states[row.shared] for row in batch), strict=True)
    output = backbone.model(
        input_ids=ids,
        attention_mask=torch.cat([prompt_mask, mask], dim=1),
        position_ids=prompt_mask.sum(dim=1, keepdim=True)
        + torch.arange(ids.shape[1], device=ids.device),
        use_cache=True,
        **{cache_argument(backbone.model): DynamicCache(map(_pad_states, by_layer))},
    )
    return _read(read, batch, [slice(len(row.own)) for row in batch], output.last_hidden_state)


def _pad_states(
    rows: Sequence[tuple["torch.Tensor", "torch.Tensor"]],
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Keys and values of one layer, each (num_rows, num_heads, longest, head_size)."""
    from torch.nn.utils.rnn import pad_sequence

    return (
        pad_sequence([keys for keys, _ in rows], batch_first=True).transpose(1, 2),
        pad_sequence([values for _, values in rows], batch_first=True).transpose(1, 2),
    )


def _read(
    read: Reader, batch: Sequence[ScoreRow], places: Sequence[slice], hidden: "torch.Tensor"
) -> dict[ScoreRow, float]:
    """The results of `read` for the own tokens' states, at these positions of each row."""
    states = [row[place] for row, place in zip(hidden, places, strict=True)]
    return dict(zip(batch, read(batch, states).tolist(), strict=True))


def pad_right(rows: Sequence[Ids], backbone: Backbone) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Token ids and attention mask, both of shape (num_rows, longest)."""
    import torch

    width = max(map(len, rows))
    padding = backbone.padding_id
    ids = [[*row, *[padding] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    device = backbone.model.device
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
