"""Speed of sampling with vLLM: K responses in one pass beside one process per seed, and LLM.chat.

python tests/benchmarks/sampling.py [--prompts 32] [--responses 5] [--tokens 64]
    [--turns 3] [--eager]

The model is SmolLM2-135M, the prompts are the demo's. One process per seed is what SimPO's public
recipe does (`decode.py`): each loads the model and samples one response per prompt. Both ways are
timed from the start of the first process to the end of the last. LLM.chat is vLLM's own way from
conversations to texts: in the process of ours, after what was timed, the two sample the same
prompts in turns, with the same settings and seeds; compared are medians of tokens per second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from machine import describe_machine

from infra.bundled_model import convert_bundled_model
from infra.engines.vllm_sampler import VllmSampler, load_vllm_sampler
from infra.hardware import read_hardware
from pvar.number_format import resolve
from pvar.ports import SampleRequest
from pvar.records import Message
from pvar.runtime_config import RuntimeConfig
from pvar.sampler_config import SamplerSettings
from pvar.vllm_config import VllmConfig


def read_requests(num_prompts: int) -> list[SampleRequest]:
    lines = (
        resources.files("pvar").joinpath("data/sentiment_prompts.jsonl").read_text().splitlines()
    )
    prompts = [json.loads(line)["prompt"] for line in lines[:num_prompts]]
    return [SampleRequest(str(row), (Message("user", text),)) for row, text in enumerate(prompts)]


def load(arguments: argparse.Namespace) -> VllmSampler:
    settings = SamplerSettings(
        engine="vllm",
        max_new_tokens=arguments.tokens,
        max_prompt_tokens=512,
        dtype=resolve("auto", read_hardware(), learns=False),
    )
    runtime = RuntimeConfig(vllm=VllmConfig(enforce_eager=arguments.eager))
    return load_vllm_sampler(arguments.model, settings, runtime)


def chat(sampler: VllmSampler, requests: list[SampleRequest], num_responses: int) -> int:
    """vLLM's own way to texts; returns the number of tokens."""
    from vllm import SamplingParams

    conversations: list[Any] = [[each._asdict() for each in one.messages] for one in requests]
    how = SamplingParams(
        n=num_responses,
        max_tokens=sampler.settings.max_new_tokens,
        temperature=sampler.settings.temperature,
        top_p=sampler.settings.top_p,
    )
    outputs = sampler.engine.chat(conversations, how, use_tqdm=False)
    return sum(len(answer.token_ids) for output in outputs for answer in output.outputs)


def sample(sampler: VllmSampler, requests: list[SampleRequest], num: int, seed: int) -> int:
    responses, _ = sampler.sample(requests, num_responses=num, seed=seed)
    return sum(each.num_tokens for each in responses)


class Timed(NamedTuple):
    """What the process of ours measures."""

    not_counted_seconds: float
    """Spent on the comparison with LLM.chat."""
    rates: dict[str, list[float]]
    """Tokens per second of each turn."""


def run_role(arguments: argparse.Namespace) -> None:
    """What one process of the comparison does."""
    requests = read_requests(arguments.prompts)
    sampler = load(arguments)
    if arguments.role == "seed":
        sampler.engine.collective_rpc("reseed", args=(arguments.seed,))
        chat(sampler, requests, 1)
    else:
        sample(sampler, requests, arguments.responses, seed=0)
        began = time.perf_counter()
        rates = take_turns(sampler, requests, arguments)
        print(json.dumps(Timed(time.perf_counter() - began, rates)))
    sampler.close()


def take_turns(
    sampler: VllmSampler, requests: list[SampleRequest], arguments: argparse.Namespace
) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {"ours": [], "chat": []}
    for seed in range(arguments.turns):
        for way, rate in rates.items():
            sampler.engine.reset_prefix_cache()
            sampler.engine.collective_rpc("reseed", args=(seed,))
            began = time.perf_counter()
            if way == "ours":
                num_tokens = sample(sampler, requests, arguments.responses, seed)
            else:
                num_tokens = chat(sampler, requests, arguments.responses)
            rate.append(num_tokens / (time.perf_counter() - began))
    return rates


def time_process(arguments: argparse.Namespace, role: str, seed: int = 0) -> tuple[float, str]:
    """Seconds of a process of its own, and what it printed last."""
    command = [
        sys.executable, __file__, "--role", role, "--seed", str(seed),
        "--model", str(arguments.model), "--prompts", str(arguments.prompts),
        "--responses", str(arguments.responses), "--tokens", str(arguments.tokens),
        "--turns", str(arguments.turns), *(["--eager"] if arguments.eager else []),
    ]  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - began, (done.stdout.strip().splitlines() or [""])[-1]


def compare(arguments: argparse.Namespace) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}", flush=True)
    seconds, printed = time_process(arguments, "ours")
    ours = Timed(*json.loads(printed))
    seconds -= ours.not_counted_seconds
    print(f"this project: {seconds:.1f} s from start to end", flush=True)
    rates = {way: median(rate) for way, rate in ours.rates.items()}
    print(f"after loading, tokens/s: ours {rates['ours']:.0f}, LLM.chat {rates['chat']:.0f}")
    print(f"ratio {rates['ours'] / rates['chat']:.3f} (turns: {ours.rates})", flush=True)
    each = [time_process(arguments, "seed", seed)[0] for seed in range(arguments.responses)]
    print(f"one process per seed: {sum(each):.1f} s ({', '.join(f'{one:.1f}' for one in each)})")
    print(f"ratio {sum(each) / seconds:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--responses", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--role", choices=["ours", "seed"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.role:
        run_role(given)
    else:
        with tempfile.TemporaryDirectory() as folder:
            if given.model is None:
                given.model = Path(folder)
                convert_bundled_model("smollm2-135m-instruct", given.model)
            compare(given)
