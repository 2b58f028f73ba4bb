"""The configuration of preference optimisation: stage `train`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pvar.config_model import ConfigModel


class LoraAdapter(ConfigModel):
    """LoRA: low-rank adapters on all linear layers instead of full fine-tuning."""

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank r of the adapters."""
    alpha: int = Field(default=32, ge=1)
    """Scaling: adapter updates are multiplied by alpha / rank."""
    dropout: float = Field(default=0, ge=0, lt=1)
    """Dropout on the adapters' input."""
    keep_adapter: bool = False
    """Also save the adapters separately, beside the merged model."""


TrainingMethod = Literal["dpo", "ipo", "kto", "simpo", "orpo"]


class TrainConfig(ConfigModel):
    """Preference optimisation with TRL."""

    method: TrainingMethod = "dpo"
    """Loss function. dpo, ipo and kto use the starting policy as the reference model; simpo and
    orpo have no reference model. kto splits each pair into two examples, and orders the pairs by a
    hash of the prompt."""
    beta: float = Field(default=0.1, gt=0)
    """Reward scale β. For dpo, ipo and kto, a higher value keeps the policy closer to the reference
    model. Use 2 to 10 for simpo. For orpo, this is the weight λ of the odds ratio."""
    simpo_gamma: float | None = Field(default=None, ge=0)
    """SimPO's target reward margin γ (0.5 to 1.5 in the paper). Required by simpo, `null` for all
    other methods."""
    learning_rate: float = Field(default=5e-7, gt=0, lt=1)
    """Peak learning rate. Typical values: 5e-7 for full fine-tuning, 5e-6 to 5e-4 for LoRA."""
    num_epochs: int = Field(default=1, ge=1, le=100)
    """Passes over the training pairs."""
    num_steps: int | None = Field(default=None, ge=1, le=1_000_000)
    """Number of optimiser steps. The pairs are passed over again, in a new order (kto: in the same
    one, which no seed changes), until it is reached, and the last pass may be partial; so trainings
    with the same pairs_per_step use the same number of pairs. `null` means num_epochs passes; with
    a number, leave num_epochs out."""
    pairs_per_step: int = Field(default=8, ge=1)
    """Pairs per optimiser step over all devices (the global batch size). The last step of an epoch
    is filled up with pairs from the start of the epoch."""
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the steps used for learning-rate warm-up."""
    lr_schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """Learning-rate schedule after warm-up."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Maximum gradient norm. Larger gradients are clipped."""
    label_weight: int = Field(default=1, ge=1, le=100)
    """Number of times that a pair with a label of the data is seen in each pass, in which a pair of
    sampled answers is seen once. It is the weight of labels against rewards where pairs have
    either (pair.own_labels)."""
    max_length_tokens: int = Field(default=2048, ge=8)
    """Maximum length of prompt plus response, in tokens. Pairs with a longer sequence are dropped
    and counted, not truncated."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Training precision. `auto` uses bfloat16 if the hardware supports it natively. bfloat16 means
    float32 weights under autocast; with LoRA, a bfloat16 base model and float32 adapters. Trainable
    weights are always float32."""
    lora: LoraAdapter | None = None
    """LoRA adapters to train. `null` trains all weights."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the data order and of the adapters' initial weights."""

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        if (self.method == "simpo") != (self.simpo_gamma is not None):
            raise ValueError(
                f"train.method is {self.method} and train.simpo_gamma is {self.simpo_gamma}; set "
                "simpo_gamma for method simpo (0.5 is usual), and leave it out for all other "
                "methods"
            )
        if self.num_steps is not None and self.num_epochs != 1:
            raise ValueError(
                f"train.num_steps is {self.num_steps} and train.num_epochs is {self.num_epochs}, "
                "but the number of steps decides how often the pairs are passed over; leave out "
                "one of the two"
            )
        if self.method == "kto" and self.pairs_per_step < 2:
            raise ValueError(
                "train.method is kto and train.pairs_per_step is 1, but KTO estimates its "
                "divergence from responses to other prompts in the batch; raise pairs_per_step"
            )
        return self
