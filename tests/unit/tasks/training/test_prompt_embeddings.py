"""Embeddings of prompts: the mean of the last hidden states, one prompt at a time as the oracle."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.training.prompt_embeddings import embed_prompts
from tests.unit.infra.tiny_models import save_language_model


def test_padding_batches_and_repeats_change_no_embedding(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_language_model(tmp_path / "model")).eval()
    # Together above the 1024 tokens of a batch; the second is there twice.
    prompts = [tuple(range(4, 4 + length)) for length in (3, 90, 250, 200, 180, 90, 160, 1)]
    done: list[int] = []
    found = embed_prompts(model, prompts, autocast=False, advance=done.append)
    assert found.shape == (len(prompts), 32)
    assert sum(done) == len(prompts) - 1
    assert len(done) > 1
    for ids, embedding in zip(prompts, found, strict=True):
        with torch.inference_mode():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        assert embedding == pytest.approx(states[0].mean(dim=0).numpy(), abs=1e-4)
