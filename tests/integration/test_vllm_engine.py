"""Sampling with the real vLLM and the real SmolLM2, on the CPU: one engine for all tests."""

import importlib
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from transformers import AutoTokenizer

from infra.engines.vllm import VllmSampler, load_vllm_sampler
from pvar.chat import prompt_token_ids
from pvar.config import RuntimeConfig, SamplerSettings
from pvar.digest import response_id
from pvar.ports import Rejection, SampleRequest
from pvar.records import Message, Response
from pvar.vllm_config import VllmConfig
from tests.services.packages import NEEDS_SMOLLM2, NEEDS_VLLM

pytestmark = [
    pytest.mark.slow,
    NEEDS_VLLM,
    NEEDS_SMOLLM2,
    # Of libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about a rainy day.",
    "Name three colours.",
    "Say hello.",
)
SETTINGS = SamplerSettings(engine="vllm", max_new_tokens=24, max_prompt_tokens=96, temperature=0.7)
K = 5


def ask(*questions: str) -> list[SampleRequest]:
    return [SampleRequest(each[:40], (Message("user", each),)) for each in questions]


@pytest.fixture(scope="module")
def sampler(smollm2: Path) -> Iterator[VllmSampler]:
    runtime = RuntimeConfig(vllm=VllmConfig(enforce_eager=True, kv_cache_gib=1))
    sampler = load_vllm_sampler(smollm2, SETTINGS, runtime)
    yield sampler
    sampler.close()


@contextmanager
def overheard(sampler: VllmSampler) -> Iterator[list[Any]]:
    """What the engine itself says of each prompt that it is given in the block."""
    outputs: list[Any] = []
    wait = sampler.engine.wait_for_completion

    def listen(**options: Any) -> Any:
        new = wait(**options)
        outputs.extend(new)
        return new

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler.engine, "wait_for_completion", listen)
        yield outputs


class Drawn(NamedTuple):
    """Answers to the same prompts."""

    seed_1: list[Response]
    seed_2: list[Response]
    seed_1_again: list[Response]
    completions: list[Any]
    """The engine's own, of seeds 1 and 2, in order."""


@pytest.fixture(scope="module")
def drawn(sampler: VllmSampler) -> Drawn:
    def draw(seed: int) -> list[Response]:
        responses, rejections = sampler.sample(ask(*QUESTIONS), num_responses=K, seed=seed)
        assert rejections == []
        return responses

    with overheard(sampler) as outputs:
        first, second = draw(1), draw(2)
    return Drawn(first, second, draw(1), [each for output in outputs for each in output.outputs])


def test_each_prompt_gets_k_answers_under_its_own_id(drawn: Drawn) -> None:
    wanted = [(question[:40], index) for question in QUESTIONS for index in range(K)]
    assert [(each.prompt_id, each.sample_index) for each in drawn.seed_1] == wanted
    for each in drawn.seed_1:
        assert each.response_id == response_id(each.prompt_id, each.sample_index, each.text)
    about_france = [each.text for each in drawn.seed_1 if "France" in each.prompt_id]
    assert any("Paris" in text for text in about_france)


def test_an_answer_is_truncated_exactly_when_it_fills_the_limit_without_an_end(
    sampler: VllmSampler, drawn: Drawn
) -> None:
    everything = drawn.seed_1 + drawn.seed_2
    for each, completion in zip(everything, drawn.completions, strict=True):
        assert 1 <= each.num_tokens == len(completion.token_ids) <= SETTINGS.max_new_tokens
        assert "<|im_end|>" not in each.text
        is_full = each.num_tokens == SETTINGS.max_new_tokens
        has_end = completion.token_ids[-1] in sampler.chat.end_ids
        assert (each.finish_reason == "length") == (is_full and not has_end)
        assert each.finish_reason == completion.finish_reason
    assert {each.finish_reason for each in everything} == {"stop", "length"}


def test_the_answers_of_one_prompt_are_not_copies(drawn: Drawn) -> None:
    about_rain = {each.text for each in drawn.seed_1 if "rainy" in each.prompt_id}
    assert len(about_rain) >= K - 1


def test_another_seed_gives_other_answers_and_the_same_seed_the_same(drawn: Drawn) -> None:
    first, other = [each.text for each in drawn.seed_1], [each.text for each in drawn.seed_2]
    assert sum(a == b for a, b in zip(first, other, strict=True)) < len(first) / 2
    # Not promised (see infra/engines/vllm.py), but so on one machine; shards before do not matter.
    assert drawn.seed_1_again == drawn.seed_1


def test_the_engine_reads_the_template_s_ids_with_one_beginning(
    smollm2: Path, sampler: VllmSampler
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    wanted = prompt_token_ids(tokenizer, (Message("user", QUESTIONS[0]),))
    with overheard(sampler) as outputs:
        sampler.sample(ask(QUESTIONS[0]), num_responses=2, seed=1)
    (output,) = outputs
    assert output.prompt_token_ids == wanted
    # SmolLM2's beginning also opens the later turns: once at the start, not twice.
    assert wanted[0] == tokenizer.bos_token_id != wanted[1]


def test_a_prompt_that_is_too_long_is_rejected_alone(sampler: VllmSampler) -> None:
    long = "again and " * 100
    requests = ask(QUESTIONS[0], long, QUESTIONS[3])
    responses, rejections = sampler.sample(requests, num_responses=2, seed=1)
    assert rejections == [Rejection(long[:40], "prompt_too_long")]
    assert [each.prompt_id for each in responses] == [QUESTIONS[0]] * 2 + [QUESTIONS[3]] * 2
    assert any("Paris" in each.text for each in responses[:2])


def test_nothing_to_answer_is_no_error(sampler: VllmSampler) -> None:
    assert sampler.sample([], num_responses=2, seed=1) == ([], [])


def test_nobody_is_told_of_the_use(sampler: VllmSampler) -> None:
    usage = importlib.import_module("vllm.usage.usage_lib")
    assert not usage.is_usage_stats_enabled()


def test_closing_ends_the_engine_s_processes(sampler: VllmSampler) -> None:
    """The last test of the file: the engine is gone after it."""
    engines = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    processes = [*engines, *(each for own in engines for each in own.children(recursive=True))]
    assert processes
    sampler.close()
    _, left = psutil.wait_procs(processes, timeout=30)
    assert left == []
