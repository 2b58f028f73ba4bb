"""Sampling with vLLM: all responses of all prompts of a shard in one pass, prefixes shared.

The engine is loaded once and serves all shards. Before each shard the engine is paused, its prefix
cache cleared, its random generators seeded with the shard's seed and all requests queued; only then
does scheduling start. So a shard's answers depend on its prompts and its seed, not on earlier
shards or on the arrival of requests: on one machine with one version, the same seed gave the same
answers in all our tests. Bitwise equality is not guaranteed: other hardware, another version or a
full KV cache (requests are then postponed) change rounding and so may change a token. Seeds per
request are not used, because vLLM's CPU backend fails on them.

Several GPUs: split one model over all with `runtime.vllm.tensor_parallel_size`, or start the stage
once per GPU (CUDA_VISIBLE_DEVICES) for one copy each; these share the shards.

The engine runs in separate processes, which end with `close` (`del` would not free a GPU's memory)
or when this process dies (`vllm_worker.py`).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from infra.engines.chat_format import ChatFormat, EncodedPrompts, load_chat_format
from pvar.errors import ConfigError, ModelError, ScoringError
from pvar.number_format import resolved
from pvar.ports import Rejection, SampleRequest
from pvar.records import Response
from pvar.runtime_config import RuntimeConfig
from pvar.sampler_config import SamplerSettings
from pvar.vllm_config import VLLM_SETUP

if TYPE_CHECKING:
    from vllm import LLM

Engine: TypeAlias = "LLM"
"""A running vLLM engine, for modules that must not import vLLM."""

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # telemetry off
    "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are dozens of lines on its own settings
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would inherit threads that hold locks
}
"""Environment variables, set before vLLM is imported unless the user has set them."""

OWNER = "PVAR_VLLM_OWNER"
"""Environment variable with the process id of the engine's owner."""

CPU_KV_CACHE_GIB = 2.0
"""Default on a CPU, where vLLM would otherwise take a share of the whole memory or fail."""


@dataclass(frozen=True)
class VllmSampler:
    """A running engine and its policy's chat format."""

    engine: Engine
    chat: ChatFormat
    settings: SamplerSettings

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        """Answer each request, or reject its prompt if it is too long."""
        encoded, rejections = self.chat.encode(requests)
        responses = [
            self.chat.response(item.prompt_id, answer.index, answer.token_ids)
            for item, output in zip(
                encoded, self._generate(encoded, num_responses, seed), strict=True
            )
            for answer in output.outputs
        ]
        return responses, rejections

    def close(self) -> None:
        """End the engine's processes."""
        close_engine(self.engine)

    def _generate(
        self, encoded: Sequence[EncodedPrompts], num_responses: int, seed: int
    ) -> list[Any]:
        """One output per prompt, in order."""
        from vllm import SamplingParams

        if not encoded:
            return []
        how = SamplingParams(
            n=num_responses,
            max_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            stop_token_ids=sorted(self.chat.end_ids),
            detokenize=False,
        )
        self.engine.sleep(level=0)  # queue without scheduling
        self.engine.reset_prefix_cache()
        self.engine.collective_rpc("reseed", args=(seed,))
        prompts = [{"prompt_token_ids": item.token_ids} for item in encoded]
        self.engine.enqueue(prompts, how, use_tqdm=False)
        self.engine.wake_up(tags=["scheduling"])
        outputs: list[Any] = self.engine.wait_for_completion(use_tqdm=False)
        return outputs


def load_vllm_sampler(
    folder: Path, settings: SamplerSettings, runtime: RuntimeConfig
) -> VllmSampler:
    """Start an engine for the model in a Hugging Face folder.

    Raises ConfigError if vLLM is not installed, ModelError if it cannot run the model.
    """
    chat = load_chat_format(folder, settings)
    engine = open_engine(
        folder,
        runtime,
        dtype=resolved(settings.dtype),
        max_model_len=chat.max_prompt_tokens + settings.max_new_tokens,
    )
    return VllmSampler(engine, chat, settings)


def open_engine(folder: Path, runtime: RuntimeConfig, **options: Any) -> Engine:
    """Start vLLM on a Hugging Face folder, with safetensors only and without remote code."""
    with starting_engine(folder, runtime) as common:
        from vllm import LLM

        return LLM(model=str(folder), use_tqdm_on_load=False, **common, **options)


@contextmanager
def starting_engine(folder: Path, runtime: RuntimeConfig) -> Iterator[dict[str, Any]]:
    """Prepare the environment for the start of an engine in the block; yields its options.

    Raises ConfigError if vLLM is not installed, ModelError if the engine does not start.
    """
    if find_spec("vllm") is None:
        raise ConfigError(f"vLLM is not installed; {VLLM_SETUP}; or use engine transformers")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[OWNER] = str(os.getpid())
    try:
        yield {
            "load_format": "safetensors",
            "trust_remote_code": False,
            "tensor_parallel_size": runtime.vllm.tensor_parallel_size,
            "gpu_memory_utilization": runtime.vllm.gpu_memory_share,
            "kv_cache_memory_bytes": _kv_cache_bytes(runtime),
            "enforce_eager": runtime.vllm.enforce_eager,
            "worker_extension_cls": f"{__package__}.vllm_worker.WorkerExtension",
        }
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"vLLM cannot run the model in {folder}: {error} (see its output above); if memory is "
            "short, change runtime.vllm.gpu_memory_share or runtime.vllm.kv_cache_gib; if the "
            "architecture is not supported, use engine transformers"
        ) from error
    finally:
        del os.environ[OWNER]


def classify(engine: Engine, token_ids: Sequence[list[int]]) -> list[float | None]:
    """The raw logit of each conversation, in order, from an engine whose runner is `pooling`.

    None if the engine failed on a conversation. Raises ScoringError if there are several logits.
    """
    from vllm import PoolingParams

    outputs = engine.classify(
        [{"prompt_token_ids": ids} for ids in token_ids],
        pooling_params=PoolingParams(use_activation=False),
        use_tqdm=False,
    )
    return [read_logit(output.outputs.probs) for output in outputs]


def read_logit(logits: Sequence[float]) -> float | None:
    """The only logit of an output; None for an empty one, by which vLLM marks a failed request."""
    if len(logits) > 1:
        raise ScoringError(
            f"vLLM returned {len(logits)} logits for a conversation, and it is unknown which one "
            "is the reward; use a reward model with one logit"
        )
    return float(logits[0]) if logits else None


def close_engine(engine: Engine) -> None:
    """End the engine's processes, which frees all its memory."""
    engine.llm_engine.engine_core.shutdown()


def _kv_cache_bytes(runtime: RuntimeConfig) -> int | None:
    import torch

    gib = runtime.vllm.kv_cache_gib
    if gib is None and not torch.cuda.is_available():
        gib = CPU_KV_CACHE_GIB
    return None if gib is None else int(gib * 2**30)
