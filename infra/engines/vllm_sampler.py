"""Sampling with vLLM: all responses of all prompts of a shard in one pass, prefixes shared.

The engine is loaded once and serves all shards. Before each shard it is paused, its prefix cache
emptied, its random generators seeded with the shard's seed and all requests queued; only then does
scheduling begin. So a shard's answers depend on its prompts and its seed, not on the shards before
it nor on when requests arrive: on one machine with one version, the same seed repeated the same
answers wherever we looked. That is no promise of equality bit by bit: other hardware, another
version, or KV-cache that runs out (requests are then put off) change the sums and with them a
token. Seeds per request are not used: vLLM's CPU backend fails at them.

Several GPUs: one model over all by `runtime.vllm.tensor_parallel_size`; a copy on each by
starting the stage once per GPU (CUDA_VISIBLE_DEVICES), which shares out the shards.

The engine is processes of its own, which end with `close` (`del` would not free a GPU's memory), or
when this process dies (`vllm_worker.py`).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from infra.engines.chat_format import ChatFormat, EncodedPrompts, load_chat_format
from pvar.config import RuntimeConfig, SamplerSettings
from pvar.errors import ConfigError, ModelError, ScoringError
from pvar.number_format import resolved
from pvar.ports import Rejection, SampleRequest
from pvar.records import Response

if TYPE_CHECKING:
    from vllm import LLM

Engine: TypeAlias = "LLM"
"""A running vLLM, for those that may not import it."""

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # nothing is told to anybody
    "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are dozens of lines on its own settings
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would inherit threads that hold locks
}
"""Set before vLLM is imported, unless the user has set them."""

OWNER = "PVAR_VLLM_OWNER"
"""Tells the engine's processes the id of the one that starts them."""

CPU_KV_CACHE_GIB = 2.0
"""On a CPU vLLM would otherwise take a share of the whole memory, and refuse where that is used."""


@dataclass(frozen=True)
class VllmSampler:
    """A running engine and how its policy is spoken to."""

    engine: Engine
    chat: ChatFormat
    settings: SamplerSettings

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        """Answer each request; prompts that are too long for the settings or the model reject."""
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

    Raises ConfigError where vLLM is not installed, ModelError where it cannot run the model.
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
    """Start vLLM on a Hugging Face folder: safetensors only, none of the model's own code."""
    if find_spec("vllm") is None:
        raise ConfigError(
            "vLLM is not installed: `make setup-vllm` installs it for the CPU, on a GPU `uv pip "
            "install --override requirements-vllm.overrides '.[pipeline,vllm]'`; or use engine "
            "transformers"
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM

    os.environ[OWNER] = str(os.getpid())
    try:
        return LLM(
            model=str(folder),
            load_format="safetensors",
            trust_remote_code=False,
            tensor_parallel_size=runtime.vllm.tensor_parallel_size,
            gpu_memory_utilization=runtime.vllm.gpu_memory_share,
            kv_cache_memory_bytes=_kv_cache_bytes(runtime),
            enforce_eager=runtime.vllm.enforce_eager,
            use_tqdm_on_load=False,
            worker_extension_cls=f"{__package__}.vllm_worker.WorkerExtension",
            **options,
        )
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"vLLM cannot run the model in {folder}: {error} (what it wrote before says more); "
            "where memory is short change runtime.vllm.gpu_memory_share or "
            "runtime.vllm.kv_cache_gib, where the architecture is unknown use transformers"
        ) from error
    finally:
        del os.environ[OWNER]


def classify(engine: Engine, token_ids: Sequence[list[int]]) -> list[float | None]:
    """The raw logit of each conversation, in order, of an engine whose runner is `pooling`.

    None where the engine failed at it. Raises ScoringError where there are several logits.
    """
    from vllm import PoolingParams

    outputs = engine.classify(
        [{"prompt_token_ids": ids} for ids in token_ids],
        pooling_params=PoolingParams(use_activation=False),
        use_tqdm=False,
    )
    return [read_logit(output.outputs.probs) for output in outputs]


def read_logit(logits: Sequence[float]) -> float | None:
    """The only logit of an output, None of an empty one: vLLM's mark of a request that failed."""
    if len(logits) > 1:
        raise ScoringError(
            f"vLLM gave {len(logits)} logits for a conversation, not one, and which of them is the "
            "reward is not known; use a one-logit reward model"
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
