"""Configuration of sampling, shared by responses to train on and answers to evaluate."""

from typing import Literal

from pydantic import Field

from pvar.config_model import ConfigModel
from pvar.number_format import NumberFormatChoice


class SamplerSettings(ConfigModel):
    """How responses are generated."""

    engine: Literal["transformers", "vllm", "openai", "fake"] = "transformers"
    """Generation engine: in process (`transformers`, `vllm`), an OpenAI-compatible server
    (`openai`), or `fake` for trying out the workflow."""
    max_new_tokens: int = Field(default=512, ge=2, le=32768)
    """Maximum length of a response, in tokens. Longer responses are cut off and counted as
    truncated."""
    max_prompt_tokens: int = Field(default=2048, ge=1, le=131072)
    """Maximum length of a prompt, in tokens. Longer prompts are rejected, not truncated."""
    temperature: float = Field(default=1.0, gt=0, le=5)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: sample from the smallest set of tokens with this total probability."""
    dtype: NumberFormatChoice = "auto"
    """Number format of the weights. `auto` uses bfloat16 if the hardware supports it natively.
    Ignored by the engines `openai` and `fake`."""
