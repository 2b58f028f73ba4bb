"""Small randomly initialised models, with a tokenizer, as folders on disk.

The tokenizer knows every byte and Llama 3's chat format. As in SmolLM2, padding is the end-of-turn
token, which every conversation ends with. The weights are spread wider than usual, so that a
token that is attended to by mistake changes a score by far more than rounding does.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedTokenizerFast,
)

SPECIAL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
BOS, _, _, END = range(4)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def tiny_config(**changes: Any) -> LlamaConfig:
    """A Llama of two layers."""
    settings = {
        "vocab_size": len(SPECIAL) + 256,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.3,
        "bos_token_id": BOS,
        "eos_token_id": END,
        "pad_token_id": END,
    }
    return LlamaConfig(**(settings | changes))


def save_classifier(folder: Path, *, num_labels: int = 1, seed: int = 0, **changes: Any) -> Path:
    """An AutoModelForSequenceClassification reward model."""
    torch.manual_seed(seed)
    config = tiny_config(num_labels=num_labels, **changes)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return save_tokenizer(folder)


def save_language_model(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A causal language model."""
    torch.manual_seed(seed)
    LlamaForCausalLM(tiny_config(**changes)).save_pretrained(folder)
    return save_tokenizer(folder)


def save_gated(folder: Path, head: dict[str, torch.Tensor], *, seed: int = 0) -> Path:
    """A model of ArmoRM's form: a decoder and these tensors of a head."""
    torch.manual_seed(seed)
    config = tiny_config(architectures=["LlamaForRewardModelWithGating"], gating_temperature=2.0)
    decoder = LlamaModel(config)
    tensors = {f"model.{name}": tensor for name, tensor in decoder.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors | head, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    return save_tokenizer(folder)


def save_tokenizer(
    folder: Path, template: str | None = TEMPLATE, *, vocab_size: int = len(SPECIAL) + 256
) -> Path:
    """The tokenizer; returns the folder. Tokens beyond the bytes are in no text, but have one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    others = [f"<{number}>" for number in range(vocab_size - len(SPECIAL) - len(alphabet))]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet, *others])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = (
        processors.TemplateProcessing(  # adds a BOS to plain text, as Llama's does
            single=f"{SPECIAL[BOS]} $A", special_tokens=[(SPECIAL[BOS], BOS)]
        )
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=SPECIAL[BOS],
        eos_token=SPECIAL[END],
        pad_token=SPECIAL[END],
        additional_special_tokens=list(SPECIAL[1:3]),
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of a checkpoint (`__` stands for a dot), or remove them."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    save_file(tensors, path, metadata={"format": "pt"})
