"""Engines: what they draw agrees with float32, alone as in a batch, and how fast they are.

A model computes the same sequences one at a time, in float32 and without a cache. By it,

- at temperature 0 each token must be the most probable one, up to rounding: the gap is how much
  more probable another token was, in nats, at worst. Attending to padding, wrong positions or a
  wrong cache make gaps of whole nats;
- at temperature 1 the mean of −log p over the drawn tokens must be the mean entropy, up to chance.
"""

import dataclasses
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pvar.number_format import NumberFormat
from pvar.records import Response
from pvar.sampler_config import SamplerSettings
from tests.gpu.bench import LIMITS, Bench, timed
from tests.gpu.rows import Found

ALMOST_ZERO = 1e-4
"""A temperature at which the most probable token is drawn."""

MAX_DEVIATION = 6.0
"""Standard errors by which −log p may be off its mean; by chance one in 500 million."""

START_SECONDS = 240
"""Limit for the start of a server."""

Load = Callable[[SamplerSettings], Any]
"""Loads the policy with an engine: a sampler with a field `chat`."""


@dataclass(frozen=True)
class Overheard:
    """A chat format that keeps the token ids of the answers that it is given."""

    chat: Any
    answers: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    """By prompt id and number of the sample."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.chat, name)

    def response(self, prompt_id: str, index: int, token_ids: Sequence[int]) -> Response:
        """The answer, as the chat format makes it."""
        self.answers[prompt_id, index] = tuple(token_ids)
        response: Response = self.chat.response(prompt_id, index, token_ids)
        return response


class Judged(NamedTuple):
    """What float32 says of one answer's tokens."""

    gap: float
    """Largest difference between the most probable token's log-probability and the token's own."""
    surprise: float
    """Sum of −log p."""
    entropy: float
    """Sum of the entropies."""
    variance: float
    """Sum of the variances of −log p."""


def transformers_engine(bench: Bench) -> Found:
    """The engine `transformers`, in the format of `auto` and in float32."""
    from infra.engines.transformers_sampler import load_transformers_sampler

    def load(settings: SamplerSettings) -> Any:
        return load_transformers_sampler(bench.policy(), settings, 128)

    return check_sampler(bench, load, (bench.low, "float32"))


def vllm_engine(bench: Bench) -> Found:
    """The engine `vllm`, whose prefixes are cached."""
    from infra.engines.vllm_sampler import load_vllm_sampler

    caches: list[bool] = []

    def load(settings: SamplerSettings) -> Any:
        sampler = load_vllm_sampler(bench.policy(), settings, vllm_runtime(bench))
        config: Any = sampler.engine.llm_engine.vllm_config.cache_config
        caches.append(bool(config.enable_prefix_caching))
        return sampler

    found = check_sampler(bench, load, (bench.low,))
    problems = [] if all(caches) else ["vLLM does not cache prefixes of this model"]
    return Found([*found.figures, "prefixes cached"], [*found.problems, *problems])


def server_engine(bench: Bench) -> Found:
    """The engine `openai`, on a server of vLLM."""
    from pydantic import SecretStr

    from infra.engines.openai_sampler import open_openai_sampler
    from infra.judges.access import SamplerAccess

    with _served(bench) as address:
        access = SamplerAccess(
            base_url=SecretStr(f"{address}/v1"),
            api_key=SecretStr("none"),
            seeds=bench.device == "cuda",
        )

        def load(settings: SamplerSettings) -> Any:
            return open_openai_sampler(bench.policy(), "policy", settings, 32, access)

        return check_sampler(bench, load, (bench.low,))


def vllm_runtime(bench: Bench) -> Any:
    """Half of a GPU, which is enough for every size; on a CPU nothing is compiled."""
    from pvar.runtime_config import RuntimeConfig
    from pvar.vllm_config import VllmConfig

    return RuntimeConfig(vllm=VllmConfig(gpu_memory_share=0.5, enforce_eager=bench.device == "cpu"))


def check_sampler(bench: Bench, load: Load, formats: Sequence[NumberFormat]) -> Found:
    """What the engine draws in each format, beside what float32 says of it, and how fast it is."""
    figures: list[str] = []
    problems: list[str] = []
    answers: dict[str, Mapping[tuple[str, int], tuple[int, ...]]] = {}
    for number_format in formats:
        settings = SamplerSettings(max_new_tokens=bench.shape.new_tokens, dtype=number_format)
        sampler = load(settings)
        try:
            answers[f"{number_format}, together"] = _greedy(bench, sampler, alone=False)
            answers[f"{number_format}, alone"] = _greedy(bench, sampler, alone=True)
            answers[f"{number_format}, drawn"], speed = _drawn(bench, sampler, problems)
        finally:
            sampler.close()
            del sampler
        figures.append(f"{number_format}: {speed}")
    judged = _judge(bench, answers)
    for number_format in formats:
        together, alone = (f"{number_format}, {how}" for how in ("together", "alone"))
        gap = max(each.gap for how in (together, alone) for each in judged[how])
        same = sum(answers[together][key] == ids for key, ids in answers[alone].items())
        off = _deviation(judged[f"{number_format}, drawn"])
        figures += [
            f"{number_format}: greedy within {gap:.2g} nats of float32's best token, "
            f"{same} of {len(answers[alone])} answers alike alone and together",
            f"{number_format}: −log p of drawn tokens {off:+.1f} standard errors from the entropy",
        ]
        if not gap <= LIMITS[number_format]:
            problems.append(f"{number_format}: a token is {gap:.2g} nats from the best one")
        if not abs(off) <= MAX_DEVIATION:
            problems.append(f"{number_format}: drawn tokens do not have the model's probabilities")
    return Found(figures, problems)


def _greedy(bench: Bench, sampler: Any, *, alone: bool) -> dict[tuple[str, int], tuple[int, ...]]:
    """One answer to each prompt; alone: to some of them, one at a time."""
    sampler, overheard = _listen(sampler, temperature=ALMOST_ZERO)
    requests = bench.requests
    for batch in (
        ([request] for request in requests[:: len(requests) // 4]) if alone else [requests]
    ):
        _, rejections = sampler.sample(batch, num_responses=1, seed=0)
        assert not rejections, rejections
    return overheard.answers


def _drawn(
    bench: Bench, sampler: Any, problems: list[str]
) -> tuple[dict[tuple[str, int], tuple[int, ...]], str]:
    """Some answers to each prompt, and how fast they were made by a warm engine."""
    sampler, overheard = _listen(sampler, temperature=1.0)
    number = bench.shape.responses
    others, _ = sampler.sample(bench.requests[:2], num_responses=number, seed=1)
    overheard.answers.clear()
    (responses, _), seconds = timed(
        lambda: sampler.sample(bench.requests, num_responses=number, seed=2)
    )
    if {each.text for each in responses} >= {each.text for each in others}:
        problems.append("two seeds gave the same answers")
    tokens = sum(each.num_tokens for each in responses)
    flops = bench.flops_per_token + bench.output_flops_per_token
    return overheard.answers, bench.speed(tokens, seconds, flops)


def _listen(sampler: Any, *, temperature: float) -> tuple[Any, Overheard]:
    """The loaded sampler at another temperature, and the answers that it makes."""
    overheard = Overheard(sampler.chat)
    settings = sampler.settings.model_copy(update={"temperature": temperature})
    return dataclasses.replace(sampler, chat=overheard, settings=settings), overheard


def _judge(
    bench: Bench, answers: Mapping[str, Mapping[tuple[str, int], tuple[int, ...]]]
) -> dict[str, list[Judged]]:
    """What float32 says of the answers, each alone."""
    from tasks.training.model import load_in_float32

    model = load_in_float32(bench.policy())
    prompts = _prompt_ids(bench)
    return {
        how: [
            _judge_one(model, prompts[prompt], ids)
            for (prompt, index), ids in found.items()
            if index < 2  # of many samples, these are enough
        ]
        for how, found in answers.items()
    }


def _prompt_ids(bench: Bench) -> dict[str, list[int]]:
    from infra.engines.chat_format import load_chat_format

    chat = load_chat_format(bench.policy(), SamplerSettings(max_new_tokens=bench.shape.new_tokens))
    encoded, rejections = chat.encode(bench.requests)
    assert not rejections, rejections
    return {each.prompt_id: each.token_ids for each in encoded}


def _judge_one(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Judged:
    import torch

    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits
        logps = logits[0, :-1].float().log_softmax(dim=1)
        own = logps.gather(1, ids[0, len(prompt) :, None])[:, 0]
        entropy = -(logps.exp() * logps).sum(dim=1)
        variance = (logps.exp() * logps.square()).sum(dim=1) - entropy.square()
        gap = (logps.amax(dim=1) - own).max()
        sums = torch.stack([gap, -own.sum(), entropy.sum(), variance.sum()]).tolist()
    return Judged(*sums)


def _deviation(judged: Sequence[Judged]) -> float:
    """Standard errors by which −log p of all tokens is above their entropy."""
    surprise, entropy, variance = (
        sum(getattr(each, name) for each in judged) for name in ("surprise", "entropy", "variance")
    )
    return float((surprise - entropy) / max(variance, 1e-12) ** 0.5)


@contextmanager
def _served(bench: Bench) -> Iterator[str]:
    """The address of vLLM's server of the policy, which ends with the block."""
    port, log = _free_port(), bench.folder / "server.txt"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(bench.policy()), "--served-model-name", "policy",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", bench.low,
        "--gpu-memory-utilization", "0.5",
    ]  # fmt: skip
    if bench.device == "cpu":
        command += ["--kv-cache-memory-bytes", str(2**29), "--enforce-eager"]
    environment = os.environ | {"VLLM_NO_USAGE_STATS": "1"}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/health", server, log)
            yield address
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        if server.poll() is not None:
            raise RuntimeError(f"vLLM's server ended: {log.read_text(errors='replace')[-300:]}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
