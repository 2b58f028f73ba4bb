"""Grouped attention gives what transformers' own gives, with and without shared heads."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from infra.cache_argument import cache_argument
from infra.engines.attention import GROUPED, register_grouped_attention
from infra.engines.transformers_sampler import load_transformers_sampler
from pvar.sampler_config import SamplerSettings
from tests.unit.infra.tiny_models import save_language_model


@pytest.mark.parametrize("num_shared", [1, 2, 4])
def test_logits_of_a_prompt_and_of_the_tokens_after_it_are_the_same(
    tmp_path: Path, num_shared: int
) -> None:
    folder = save_language_model(tmp_path, num_key_value_heads=4 // num_shared)
    ids = torch.randint(4, 260, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5] = mask[1, :2] = 0  # padded on the left, each otherwise

    def logits(attention: str) -> list[torch.Tensor]:
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention).eval()
        found, cache = [], None
        with torch.inference_mode():
            for start, stop in ((0, 8), (8, 9), (9, 10), (10, 12)):
                positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, start:stop]
                output = model(
                    input_ids=ids[:, start:stop],
                    attention_mask=mask[:, :stop],
                    position_ids=positions,
                    **{cache_argument(model): cache},
                    use_cache=True,
                )
                cache = output.past_key_values
                found.append(output.logits[:, -1])
        return found

    for ours, theirs in zip(logits(register_grouped_attention()), logits("sdpa"), strict=True):
        # Logits of up to ±10, in float32.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_the_sampler_uses_it(tmp_path: Path) -> None:
    settings = SamplerSettings(max_new_tokens=4, max_prompt_tokens=60, dtype="float32")
    sampler = load_transformers_sampler(save_language_model(tmp_path), settings, 4)
    assert sampler.model.config._attn_implementation == GROUPED
