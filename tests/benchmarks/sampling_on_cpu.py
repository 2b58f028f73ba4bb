"""Tokens per CPU-second of sampling on a CPU: this project, transformers' generate and llama.cpp.

python tests/benchmarks/sampling_on_cpu.py [--prompts 16] [--responses 8] [--tokens 48] [--bfloat16]
    [--ours-only]

The model is SmolLM2-135M-Instruct, the prompts are the demo's. CPU-seconds are those of all threads
of this process, loading left out; one turn each, so differences of a tenth are the machine's.
llama.cpp runs where a package of it is installed (`pip install xllamacpp`), on the quantised
weights (Q4_1) that the demo's model is made from; the others compute in `auto`, and with
--bfloat16 this project once more in bfloat16. One row is this project's sampling with transformers'
own attention, which shows what infra/engines/attention.py saves.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from machine import describe_machine
from sampling import read_requests
from transformers import AutoModelForCausalLM

from infra.bundled_model import BUNDLED, bundled_weights, convert_bundled_model
from infra.engines.transformers_sampler import load_transformers_sampler
from infra.hardware import read_hardware
from pvar.number_format import NumberFormat, resolve
from pvar.ports import SampleRequest
from pvar.sampler_config import SamplerSettings

NAME = "smollm2-135m-instruct"
TEMPERATURE = 0.7


def ours(
    folder: Path,
    requests: list[SampleRequest],
    given: argparse.Namespace,
    dtype: NumberFormat,
    attention: str | None = None,
) -> Callable[[], int]:
    settings = SamplerSettings(
        max_new_tokens=given.tokens, max_prompt_tokens=256, temperature=TEMPERATURE, dtype=dtype
    )
    sampler = load_transformers_sampler(folder, settings, len(requests) * given.responses)
    if attention:
        sampler.model.set_attn_implementation(attention)

    def run() -> int:
        responses, _ = sampler.sample(requests, num_responses=given.responses, seed=0)
        return sum(each.num_tokens for each in responses)

    return run


def generate(
    folder: Path, requests: list[SampleRequest], given: argparse.Namespace, dtype: NumberFormat
) -> Callable[[], int]:
    """transformers' own way, all prompts in one batch, padded on the left."""
    from transformers import AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    conversations = [[each._asdict() for each in request.messages] for request in requests]
    inputs = tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, padding=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip

    def run() -> int:
        answers = model.generate(
            **inputs, do_sample=True, temperature=TEMPERATURE, top_k=0, max_new_tokens=given.tokens,
            num_return_sequences=given.responses, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        new = answers[:, inputs["input_ids"].shape[1] :]
        ended = (new == tokenizer.eos_token_id).int()
        length = new.shape[1]
        first = torch.where(ended.any(dim=1), ended.argmax(dim=1) + 1, length)
        return int(first.sum())

    return run


def llama_cpp(requests: list[SampleRequest], given: argparse.Namespace) -> Callable[[], int]:
    """llama.cpp's server in this process, as many slots as there are responses to a prompt."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(bundled_weights(BUNDLED[NAME]))
    parameters.n_parallel = given.responses
    parameters.n_ctx = 512 * given.responses
    parameters.cpuparams.n_threads = torch.get_num_threads()
    server = xllamacpp.Server(parameters)

    def ask(request: SampleRequest) -> int:
        answer = server.handle_chat_completions(
            {
                "messages": [each._asdict() for each in request.messages],
                "temperature": TEMPERATURE,
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0.0,
                "max_tokens": given.tokens,
            }
        )
        return int(answer["usage"]["completion_tokens"])

    def run() -> int:
        asked = [request for request in requests for _ in range(given.responses)]
        with ThreadPoolExecutor(given.responses) as pool:
            return sum(pool.map(ask, asked))

    return run


def measure(name: str, run: Callable[[], int]) -> None:
    seconds, wall = time.process_time(), time.perf_counter()
    tokens = run()
    seconds, wall = time.process_time() - seconds, time.perf_counter() - wall
    print(
        f"| {name} | {tokens} | {tokens / seconds:.0f} | {tokens / wall:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--ours-only", action="store_true")
    given = parser.parse_args()
    dtype = resolve("auto", read_hardware(), learns=False)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}, {torch.get_num_threads()} threads")
    print("| way | tokens | tokens per CPU-second | tokens per second |\n|---|---|---|---|")
    requests = read_requests(given.prompts)
    with TemporaryDirectory() as home:
        folder = Path(home)
        convert_bundled_model(NAME, folder)
        measure(f"this project, {dtype}", ours(folder, requests, given, dtype))
        measure(
            f"this project with transformers' attention, {dtype}",
            ours(folder, requests, given, dtype, "sdpa"),
        )
        if given.bfloat16:
            measure("this project, bfloat16", ours(folder, requests, given, "bfloat16"))
        if given.ours_only:
            return
        measure(f"transformers' generate, {dtype}", generate(folder, requests, given, dtype))
        if find_spec("xllamacpp") is not None:
            measure("llama.cpp, Q4_1", llama_cpp(requests, given))


if __name__ == "__main__":
    main()
