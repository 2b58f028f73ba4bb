"""Sampling with transformers, in process: the engine for machines without vLLM.

Batches are sorted by prompt length and padded on the left; the prompt is rendered to ids by the
model's own chat template (`pvar/chat.py`); `decoding.py` draws the answers.
Not covered: continuous batching, several devices.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from infra.engines.decoding import Sampling, decode
from pvar.chat import prompt_token_ids
from pvar.config import SamplerSettings
from pvar.digest import response_id
from pvar.ports import Rejection, SampleRequest
from pvar.records import FinishReason, Response

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


class _Encoded(NamedTuple):
    prompt_id: str
    token_ids: list[int]


@dataclass(frozen=True)
class TransformersSampler:
    """A causal language model and its tokenizer, loaded."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    settings: SamplerSettings
    sequences_per_batch: int

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        """Answer each request; prompts that are too long for the settings or the model reject."""
        import torch

        torch.manual_seed(seed)
        encoded, rejections = self._encode(requests)
        encoded.sort(key=lambda item: (len(item.token_ids), item.prompt_id))
        responses: list[Response] = []
        for batch in _batches(encoded, max(1, self.sequences_per_batch // num_responses)):
            responses += self._generate(batch, num_responses)
        return responses, rejections

    def close(self) -> None:
        """Nothing beyond the process: memory is freed when it ends (each stage is its own)."""

    def _encode(self, requests: Sequence[SampleRequest]) -> tuple[list[_Encoded], list[Rejection]]:
        limit = self.settings.max_prompt_tokens
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context is not None:
            limit = min(limit, context - self.settings.max_new_tokens)
        encoded, rejections = [], []
        for request in requests:
            ids = prompt_token_ids(self.tokenizer, request.messages)
            if len(ids) > limit:
                rejections.append(Rejection(request.prompt_id, "prompt_too_long"))
            else:
                encoded.append(_Encoded(request.prompt_id, ids))
        return encoded, rejections

    def _generate(self, batch: Sequence[_Encoded], num_responses: int) -> list[Response]:
        token_ids, mask = _pad_left([item.token_ids for item in batch], self._padding_id())
        device = self.model.device
        how = Sampling(
            num_responses,
            self.settings.max_new_tokens,
            self.settings.temperature,
            self.settings.top_p,
            self._end_ids(),
        )
        answers = decode(self.model, token_ids.to(device), mask.to(device), how)
        return [
            self._response(item.prompt_id, index, answers[row * num_responses + index])
            for row, item in enumerate(batch)
            for index in range(num_responses)
        ]

    def _response(self, prompt_id: str, index: int, token_ids: list[int]) -> Response:
        ended = token_ids[-1] in self._end_ids()
        finish: FinishReason = "stop" if ended else "length"
        text = str(self.tokenizer.decode(token_ids, skip_special_tokens=True)).strip()
        return Response(
            prompt_id, response_id(prompt_id, index, text), index, text, len(token_ids), finish
        )

    def _end_ids(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id
        many = configured if isinstance(configured, list) else [configured]
        return frozenset(
            token for token in (*many, self.tokenizer.eos_token_id) if token is not None
        )

    def _padding_id(self) -> int:
        """Any id will do: padding is masked, and what follows an end is cut off."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else next(iter(self._end_ids())))


def load_transformers_sampler(
    folder: Path, settings: SamplerSettings, sequences_per_batch: int
) -> TransformersSampler:
    """Load the model in a Hugging Face folder; bfloat16, on the GPU if there is one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return TransformersSampler(model, tokenizer, settings, sequences_per_batch)


def _batches(items: Sequence[_Encoded], size: int) -> Iterator[Sequence[_Encoded]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _pad_left(rows: Sequence[list[int]], pad: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch

    width = max(len(row) for row in rows)
    ids = [[pad] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
