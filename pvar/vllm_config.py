"""Hardware settings of vLLM: part of the runtime configuration."""

from pydantic import Field

from pvar.config_model import ConfigModel

VLLM_SETUP = (
    "run: uv pip install --override <(echo 'fastapi[standard]>=0.139,<0.151') "
    "'pvar[pipeline,vllm]' (in a checkout, for a CPU: make setup-vllm)"
)
"""vLLM bounds FastAPI below what Prefect runs with; it works with either."""


class VllmConfig(ConfigModel):
    """How vLLM runs a model. For one copy per GPU, raise `workers` in the stage's placement."""

    tensor_parallel_size: int = Field(default=1, ge=1, le=1024)
    """Number of GPUs over which one copy of the model is split."""
    gpu_memory_share: float = Field(default=0.9, gt=0, le=1)
    """Fraction of a GPU's memory for weights and KV cache."""
    kv_cache_gib: float | None = Field(default=None, gt=0)
    """Size of the KV cache, in GiB. `null` uses the rest of gpu_memory_share on a GPU, and 2 on a
    CPU."""
    enforce_eager: bool = False
    """Disable compilation and CUDA graphs: start faster, run slower."""
