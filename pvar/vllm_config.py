"""What vLLM is told of the hardware: part of the runtime configuration."""

from pydantic import Field

from pvar.config_model import ConfigModel


class VllmConfig(ConfigModel):
    """How vLLM runs a model. A copy per GPU comes from running the stage several times at once."""

    tensor_parallel_size: int = Field(default=1, ge=1, le=1024)
    """GPUs that one copy of the model is spread over."""
    gpu_memory_share: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory for weights and KV cache."""
    kv_cache_gib: float | None = Field(default=None, gt=0)
    """KV cache in GiB. None: what the share leaves on a GPU, 2 on a CPU."""
    enforce_eager: bool = False
    """Start sooner and run slower: nothing is compiled."""
