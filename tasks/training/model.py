"""Load the model to train, and save the trained model.

Trainable weights are float32. With LoRA and precision bfloat16 the base is frozen and bfloat16;
with full training and bfloat16 the weights are float32 under autocast. The saved model is a plain
Hugging Face folder in bfloat16 with merged adapters, which transformers, vLLM and MLflow load.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvar.train_config import LoraAdapter, TrainConfig

if TYPE_CHECKING:
    from peft import LoraConfig


def load_policy(folder: Path, settings: TrainConfig) -> Any:
    """The starting model, in the training precision."""
    import torch
    from transformers import AutoModelForCausalLM

    frozen_bfloat16 = settings.lora is not None and settings.precision == "bfloat16"
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if frozen_bfloat16 else torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
    )


def load_frozen(folder: Path, settings: TrainConfig) -> Any:
    """The model as training loads it, for log-probabilities; on the GPU if there is one."""
    import torch

    model = load_policy(folder, settings).eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def load_in_float32(folder: Path, adapter: Path | None = None) -> Any:
    """A model for exact gradients, on the GPU if there is one.

    `adapter`: folder of LoRA adapters on it, which are merged into its weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        model.requires_grad_(True)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def lora_config(adapter: LoraAdapter) -> "LoraConfig":
    """Adapters on all linear layers."""
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def save_model(model: Any, tokenizer: Any, folder: Path, adapter_folder: Path | None) -> None:
    """Write the merged model; the adapters are also written to `adapter_folder` separately."""
    import torch
    from peft import PeftModel

    if isinstance(model, PeftModel):
        if adapter_folder is not None:
            model.save_pretrained(adapter_folder, safe_serialization=True)
        model = model.merge_and_unload()
    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
