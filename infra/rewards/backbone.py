"""A decoder without its head, and the hidden states of rows computed with it.

Rows are padded on the right under an attention mask, and a row's states are cut out by its length:
no token id is ever looked at, so padding with the end-of-sequence id (SmolLM2: both are 2) cannot
change which state is scored, as it does in transformers' own sequence classifiers, which search for
the last id that is not padding (PITFALLS 9).

The prompt of several answers is run once: its keys and values are computed for a batch of prompts
and gathered for each batch of answers. Not for models with sliding windows or recurrent states,
whose caches hold no whole prompt; those run every conversation in full.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from infra.rewards.batching import out_of_memory, run_in_batches
from infra.rewards.rows import Ids, Row
from pvar.errors import ModelError, ScoringError

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["float32", "bfloat16"]

Reader = Callable[[Sequence[Row], Sequence["torch.Tensor"]], "torch.Tensor"]
"""From rows and their hidden states to one float32 value per row, shape (num_rows,).

The states of a row are those of its own tokens, shape (len(row.own), hidden_size)."""


class Checkpoint(NamedTuple):
    """A model folder, loaded."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    other_tensors: frozenset[str]
    """Names of the tensors in the folder that the model does not have: a reward model's head."""


@dataclass(frozen=True)
class Backbone:
    """A decoder whose output is `last_hidden_state`."""

    model: "PreTrainedModel"
    padding_id: int
    """Any id will do: padding is masked and never read."""
    shares_prompts: bool
    """Whether a prompt's keys and values can be reused for each of its answers."""


class _Prompts(NamedTuple):
    """Keys and values of a batch of prompts, padded on the right."""

    row_of: dict[Ids, int]
    cache: "DynamicCache"
    mask: "torch.Tensor"


def load_checkpoint(folder: Path, auto_class: Any, dtype: Dtype) -> Checkpoint:
    """Load a model from safetensors, without running code from the folder, and its tokenizer.

    Raises ModelError if the folder cannot be loaded or does not hold all weights of the model.
    """
    import torch
    from transformers import AutoTokenizer

    try:
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
            "with safetensors weights, a tokenizer and no code of its own"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of a {type(model).__name__}, {missing[0]} "
            "among them: the files are incomplete, or they are of another kind of model"
        )
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return Checkpoint(model, tokenizer, frozenset(info["unexpected_keys"]))


def make_backbone(model: "PreTrainedModel", padding_id: int | None) -> Backbone:
    """Take a decoder as it is; sharing prompts is decided by the kind of its cache."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    layers = DynamicCache(config=model.config).layers
    return Backbone(model, padding_id or 0, all(type(layer) is DynamicLayer for layer in layers))


def max_context_tokens(model: "PreTrainedModel", limit: int) -> int:
    """`limit`, or the model's own context length where that is shorter."""
    context = getattr(model.config, "max_position_embeddings", None)
    return limit if context is None else min(limit, context)


def evaluate(
    backbone: Backbone, rows: Iterable[Row], read: Reader, tokens_per_batch: int
) -> dict[Row, float]:
    """What `read` makes of each distinct row's hidden states.

    Raises ScoringError if a single row does not fit in memory.
    """
    import torch

    by_prompt: dict[Ids, list[Row]] = defaultdict(list)
    for row in rows:
        by_prompt[row.shared if backbone.shares_prompts else ()].append(row)
    whole = by_prompt.pop((), [])
    try:
        with torch.inference_mode():
            return run_in_batches(
                whole,
                partial(_run_whole, backbone, read),
                sizes=lambda row: (len(row.shared) + len(row.own),),
                tokens_per_batch=tokens_per_batch,
            ) | run_in_batches(
                by_prompt,
                partial(_run_prompts, backbone, read, by_prompt, tokens_per_batch),
                sizes=lambda prompt: (len(prompt),),
                tokens_per_batch=tokens_per_batch,
            )
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise ScoringError(
            "a single conversation does not fit in memory; lower max_length_tokens of the reward "
            "model, or give it more memory"
        ) from error


def _run_whole(backbone: Backbone, read: Reader, batch: Sequence[Row]) -> dict[Row, float]:
    ids, mask = pad_right([row.shared + row.own for row in batch], backbone)
    output = backbone.model(input_ids=ids, attention_mask=mask, use_cache=False)
    states = [
        hidden[len(row.shared) : len(row.shared) + len(row.own)]
        for row, hidden in zip(batch, output.last_hidden_state, strict=True)
    ]
    return dict(zip(batch, read(batch, states).tolist(), strict=True))


def _run_prompts(
    backbone: Backbone,
    read: Reader,
    by_prompt: dict[Ids, list[Row]],
    tokens_per_batch: int,
    batch: Sequence[Ids],
) -> dict[Row, float]:
    """All answers to a batch of prompts, themselves in batches."""
    ids, mask = pad_right(batch, backbone)
    output = backbone.model(input_ids=ids, attention_mask=mask, use_cache=True)
    row_of = {prompt: row for row, prompt in enumerate(batch)}
    prompts = _Prompts(row_of, output.past_key_values, mask)
    return run_in_batches(
        [row for prompt in batch for row in by_prompt[prompt]],
        partial(_run_answers, backbone, read, prompts),
        sizes=lambda row: (len(row.own), len(row.shared)),
        tokens_per_batch=tokens_per_batch,
    )


def _run_answers(
    backbone: Backbone, read: Reader, prompts: _Prompts, batch: Sequence[Row]
) -> dict[Row, float]:
    import torch
    from transformers import DynamicCache

    ids, mask = pad_right([row.own for row in batch], backbone)
    of_row = torch.tensor([prompts.row_of[row.shared] for row in batch], device=ids.device)
    longest = max(len(row.shared) for row in batch)
    prompt_mask = prompts.mask[of_row, :longest]
    cache = DynamicCache(
        (keys[of_row, :, :longest], values[of_row, :, :longest])
        for keys, values, _ in prompts.cache
    )
    output = backbone.model(
        input_ids=ids,
        attention_mask=torch.cat([prompt_mask, mask], dim=1),
        position_ids=prompt_mask.sum(dim=1, keepdim=True)
        + torch.arange(ids.shape[1], device=ids.device),
        past_key_values=cache,
        use_cache=True,
    )
    states = [
        hidden[: len(row.own)] for row, hidden in zip(batch, output.last_hidden_state, strict=True)
    ]
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
