"""Sampling with transformers in process: the engine for machines without vLLM.

Batches are sorted by prompt length and padded on the left; `chat_format.py` renders the prompts,
`decoding.py` samples the answers. Continuous batching and several devices are not supported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.engines.attention import register_grouped_attention
from infra.engines.chat_format import ChatFormat, EncodedPrompts, load_chat_format
from infra.engines.decoding import Sampling, decode
from pvar.number_format import resolved
from pvar.ports import Rejection, SampleRequest
from pvar.records import Response
from pvar.sampler_config import SamplerSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TransformersSampler:
    """A loaded causal language model and its tokenizer."""

    model: "PreTrainedModel"
    chat: ChatFormat
    settings: SamplerSettings
    sequences_per_batch: int

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        """Answer each request, or reject its prompt if it is too long."""
        import torch

        torch.manual_seed(seed)
        encoded, rejections = self.chat.encode(requests)
        encoded.sort(key=lambda item: (len(item.token_ids), item.prompt_id))
        responses: list[Response] = []
        for batch in _batches(encoded, max(1, self.sequences_per_batch // num_responses)):
            responses += self._generate(batch, num_responses)
        return responses, rejections

    def close(self) -> None:
        """Do nothing: the memory is freed with this object."""

    def _generate(self, batch: Sequence[EncodedPrompts], num_responses: int) -> list[Response]:
        token_ids, mask = _pad_left([item.token_ids for item in batch], self._padding_id())
        device = self.model.device
        how = Sampling(
            num_responses,
            self.settings.max_new_tokens,
            self.settings.temperature,
            self.settings.top_p,
            self.chat.end_ids,
        )
        answers = decode(self.model, token_ids.to(device), mask.to(device), how)
        return [
            self.chat.response(item.prompt_id, index, answers[row * num_responses + index])
            for row, item in enumerate(batch)
            for index in range(num_responses)
        ]

    def _padding_id(self) -> int:
        """Any id works: padding is masked, and tokens after an end token are dropped."""
        pad = self.chat.tokenizer.pad_token_id
        return int(pad if pad is not None else next(iter(self.chat.end_ids)))


def load_transformers_sampler(
    folder: Path, settings: SamplerSettings, sequences_per_batch: int
) -> TransformersSampler:
    """Load the model in a Hugging Face folder, on the GPU if there is one."""
    import torch
    from transformers import AutoModelForCausalLM

    grouped = register_grouped_attention()
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, resolved(settings.dtype)),
        use_safetensors=True,
        trust_remote_code=False,
    )
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(grouped)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    chat = load_chat_format(folder, settings)
    return TransformersSampler(model, chat, settings, sequences_per_batch)


def _batches(items: Sequence[EncodedPrompts], size: int) -> Iterator[Sequence[EncodedPrompts]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _pad_left(rows: Sequence[list[int]], pad: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch

    width = max(len(row) for row in rows)
    ids = [[pad] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
