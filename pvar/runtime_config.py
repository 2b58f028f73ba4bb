"""Configuration of how and where stages run. No digest depends on it."""

from typing import Literal

from pydantic import Field, field_validator

from pvar.config_model import ConfigModel
from pvar.judge_config import JudgePrice
from pvar.placement import PlacementConfig
from pvar.vllm_config import VllmConfig

REWARD_KEY = "score.reward_models"
JUDGE_KEY = "evaluate.judge"


class RuntimeConfig(ConfigModel):
    """How and where stages run. None of these settings changes an artifact's identity."""

    sampled_responses_per_shard: int = Field(default=512, ge=1)
    """Responses per shard of sampling (at least those of one prompt). A crash loses at most the
    shard in progress."""
    responses_per_shard: int = Field(default=4096, ge=1)
    """Responses per shard of scoring."""
    sequences_per_batch: int = Field(default=128, ge=1)
    """Sequences generated at once (engine `transformers`)."""
    sampler_max_in_flight: int = Field(default=32, ge=1, le=1024)
    """Maximum concurrent requests to the policy's server (engine `openai`)."""
    harness_sequences_per_batch: int = Field(default=8, ge=1)
    """Sequences per batch of lm-evaluation-harness (benchmark lm_eval, backend `transformers`)."""
    vllm: VllmConfig = VllmConfig()
    """Parallelism and memory of vLLM."""
    scoring_backend: Literal["transformers", "vllm"] = "transformers"
    """Backend of reward models of kind `classifier`. Use `vllm` for large ones with one logit."""
    score_tokens_per_batch: int | None = Field(default=None, ge=64)
    """Padded tokens per scoring batch, halved when memory runs out. `null` chooses a value by
    device."""
    reward_max_in_flight: int = Field(default=32, ge=1, le=1024)
    """Maximum concurrent requests to the server of a reward model of kind `http`."""
    pairs_per_device: int = Field(default=4, ge=1)
    """Pairs per device and forward pass. Gradients are accumulated up to train.pairs_per_step."""
    num_processes: int = Field(default=1, ge=1, le=64)
    """Training processes on this machine, one per GPU."""
    sharding: Literal["fsdp", "deepspeed"] | None = None
    """How the weights are sharded over the training GPUs. `null` keeps a full copy on each GPU."""
    checkpoint_steps: int = Field(default=50, ge=1)
    """Optimiser steps between checkpoints. A crash loses at most this many steps."""
    judge_mode: Literal["live", "batch"] = "live"
    """How a judge on a server is asked. `batch` uses the server's batch API: cheaper and without a
    rate limit, but an answer may take a day. A run that ends while it waits submits nothing twice:
    the next run collects the answers."""
    judge_poll_seconds: float = Field(default=5, gt=0, le=3600)
    """First pause between two looks at a batch. The pauses grow to a minute."""
    judge_max_in_flight: int = Field(default=8, ge=1, le=256)
    """Maximum concurrent requests to the judge's server."""
    judge_timeout_seconds: float = Field(default=120, gt=0)
    """Timeout of a request to the judge's server."""
    judge_max_attempts: int = Field(default=6, ge=1, le=20)
    """Maximum attempts per request. After the last one, the verdict is missing."""
    judge_max_calls: int | None = Field(default=None, ge=0)
    """Maximum judge calls per run; `null` sets no limit. The next run continues where this one
    stopped."""
    judge_max_usd: float | None = Field(default=None, ge=0)
    """Maximum cost of judge calls per run, in USD; `null` sets no limit. Requires the prices of
    the judge's model. A batch is submitted only as far as its estimated cost fits."""
    judge_anchors: int = Field(default=32, ge=0, le=1000)
    """Earlier comparisons that a benchmark's judge on a server is asked about again before it
    judges further answers, to see whether it still answers as before (docs/operations.md). They
    count against the judge's budget. 0 switches the check off; fewer than 7 find nothing."""
    judge_prices: tuple[JudgePrice, ...] = ()
    """Prices of judges' models, one entry per model (with judge_mode `batch`, the prices of the
    batch API)."""
    judge_usd_per_million_prompt_tokens: float | None = Field(default=None, ge=0)
    """Price of prompt tokens of judges that judge_prices does not list, in USD per million."""
    judge_usd_per_million_completion_tokens: float | None = Field(default=None, ge=0)
    """Price of completion tokens of judges that judge_prices does not list, in USD per million."""
    lease_seconds: float = Field(default=60, ge=5)
    """A worker is presumed dead after this long without a heartbeat. Another worker then takes over
    its shard."""
    unnamed: tuple[Literal["score.reward_models", "evaluate.judge"], ...] = ()
    """Which of these keys the preset does not name, so that a lexicon stands in. Set when the
    preset is read; log, report and the gate's decision then say so."""
    placement: PlacementConfig = PlacementConfig()
    """Which stages run as separate flow runs, and on which work pool."""

    @field_validator("judge_prices")
    @classmethod
    def _models_differ(cls, prices: tuple[JudgePrice, ...]) -> tuple[JudgePrice, ...]:
        models = [price.model for price in prices]
        if len(set(models)) < len(models):
            raise ValueError(
                f"runtime.judge_prices names a model twice: {', '.join(models)}; give each model "
                "one entry"
            )
        return prices

    def price_of_judge(self, model: str) -> JudgePrice | None:
        """Prices of a model on a judge's server; None if they are unknown."""
        for price in self.judge_prices:
            if price.model == model:
                return price
        prompt = self.judge_usd_per_million_prompt_tokens
        completion = self.judge_usd_per_million_completion_tokens
        if prompt is None or completion is None:
            return None
        return JudgePrice(
            model=model,
            usd_per_million_prompt_tokens=prompt,
            usd_per_million_completion_tokens=completion,
        )
