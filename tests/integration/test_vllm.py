"""Sampling and scoring with the real vLLM, on the CPU.

One engine of the real SmolLM2 samples for all tests, and all are in one file, because to import
vLLM takes a process a quarter of a minute.
"""

import importlib
import json
import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from transformers import AutoTokenizer

from infra.engines.chat_format import load_chat_format
from infra.engines.vllm_sampler import VllmSampler, load_vllm_sampler
from infra.hardware import read_hardware
from infra.rewards.classifier import load_classifier_scorer
from infra.rewards.vllm_classifier import load_vllm_classifier
from pvar.chat import prompt_token_ids
from pvar.digest import response_id
from pvar.number_format import resolve
from pvar.ports import Rejection, SampleRequest, ScoreRequest
from pvar.records import Message, Prompt, Response
from pvar.reward_config import ClassifierReward
from pvar.runtime_config import RuntimeConfig
from pvar.sampler_config import SamplerSettings
from pvar.vllm_config import VllmConfig
from tasks.engine.lease import try_acquire
from tests.integration.test_kill import records
from tests.services.packages import NEEDS_SMOLLM2, NEEDS_VLLM
from tests.services.processes import NEVER_SECONDS, wait_until
from tests.unit.infra.tiny_models import save_classifier
from tests.workflow import start_workflow

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
SETTINGS = SamplerSettings(
    engine="vllm",
    max_new_tokens=24,
    max_prompt_tokens=96,
    temperature=0.7,
    dtype=resolve("auto", read_hardware(), learns=False),
)
K = 5


def ask(*questions: str) -> list[SampleRequest]:
    return [SampleRequest(each[:40], (Message("user", each),)) for each in questions]


@pytest.fixture(scope="module", autouse=True)
def _quiet_end() -> Iterator[None]:
    """A closed engine's thread holds what is unclosed a little longer; it is to be found here."""
    yield
    names = ("EngineCoreOutputQueueThread", "MPClientEngineMonitor")
    wait_until(
        lambda: not any(each.name in names for each in threading.enumerate()), "vLLM's threads"
    )


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
    # Not promised (see infra/engines/vllm_sampler.py), but so on one machine.
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


def engine_below(process: psutil.Process) -> list[psutil.Process]:
    """vLLM's processes among the descendants: core and worker."""
    return [each for each in process.children(recursive=True) if each.name().startswith("VLLM::")]


def test_a_killed_stage_keeps_its_shards_and_leaves_no_engine(
    smollm2: Path, sampler: VllmSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = {
        "sampled_responses_per_shard": 4,
        "lease_seconds": 60,
        "vllm": {"enforce_eager": True, "kv_cache_gib": 1},
    }
    sample = SETTINGS.model_dump(exclude_unset=True) | {"num_responses": 2}
    changes = {"policy": str(smollm2), "sample": sample, "runtime": runtime}
    home = tmp_path / "home"
    flow = start_workflow(home, **changes)
    flow.make("ingest")
    held = [flow.nodes["sample"].keys.manifest, "sample"]
    command = [sys.executable, "-m", "tests.stage_process", str(home), json.dumps(changes), *held]
    # Its last shard cannot be made: sampling is not over before the kill.
    train = [
        row
        for row in flow.artifact("ingest").rows("prompts.parquet", Prompt)
        if row.split == "train"
    ]
    last = try_acquire(
        flow.store, flow.nodes["sample"].keys.lease((len(train) - 1) // 2), ttl_seconds=3600
    )
    assert last is not None
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as killed:
        started = psutil.Process(killed.pid)
        wait_until(
            lambda: records(flow, "sample") >= 2 or killed.poll() is not None,
            "two shards",
            pause_seconds=0.02,
        )
        engine = engine_below(started)
        killed.send_signal(signal.SIGKILL)  # it alone: vLLM's processes must notice
    assert killed.returncode == -signal.SIGKILL, "it was over before it could be killed"
    assert len(engine) == 2
    _, left = psutil.wait_procs(engine, timeout=NEVER_SECONDS)
    assert left == []
    last.release()
    kept = flow.objects("sample")
    num_recorded = records(flow, "sample")

    def running(folder: Path, settings: SamplerSettings, _: RuntimeConfig) -> VllmSampler:
        return VllmSampler(sampler.engine, load_chat_format(folder, settings), settings)

    # Another engine of the same settings would start for a minute.
    monkeypatch.setattr("infra.engines.vllm_sampler.load_vllm_sampler", running)
    monkeypatch.setattr(VllmSampler, "close", lambda _: None)
    again = flow.make("sample")

    manifest = again.artifact.manifest
    assert again.shards_made == len(manifest.shards) - num_recorded >= 1
    after = flow.objects("sample")
    # Documents and shards are as they were; a file of the shard that was in the making may differ.
    recorded = {key for key in kept if key.endswith(".json")}
    assert {key: after[key] for key in recorded} == {key: kept[key] for key in recorded}
    responses = again.artifact.rows("responses.parquet", Response)
    assert len({each.response_id for each in responses}) == manifest.row_counts.rows_out
    assert manifest.row_counts.rows_in == manifest.row_counts.rows_out == len(responses)


def test_closing_ends_the_engine_s_processes(sampler: VllmSampler) -> None:
    """The last test with the engine, which is gone after it."""
    engines = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    processes = [*engines, *(each for own in engines for each in own.children(recursive=True))]
    assert processes
    sampler.close()
    _, left = psutil.wait_procs(processes, timeout=NEVER_SECONDS)
    assert left == []


ANSWERS = ("yes", "no, and for a reason that takes longer to say", "maybe " * 12, "", "yes")
REQUESTS = [
    ScoreRequest(question, f"{question}/{row}", (Message("user", question),), answer)
    for question in ("Is it?", "Why would anybody ask such a thing at this hour?")
    for row, answer in enumerate(ANSWERS)
]


def test_a_classifier_scores_as_in_transformers_with_the_same_reasons(tmp_path: Path) -> None:
    """A one-logit model, in both backends."""
    # Four heads of width 32, the least that vLLM's attention has.
    folder = save_classifier(tmp_path / "model", seed=3, hidden_size=128, intermediate_size=128)
    settings = ClassifierReward(
        name="tiny", model=str(folder), max_length_tokens=512, dtype="float32"
    )
    wanted = load_classifier_scorer(folder, settings, None).score(REQUESTS)
    runtime = RuntimeConfig(vllm=VllmConfig(enforce_eager=True, kv_cache_gib=0.25))
    scorer = load_vllm_classifier(folder, settings, runtime)
    found = scorer.score(REQUESTS)
    scorer.close()

    assert [(each.response_id, each.reason) for each in found] == [
        (each.response_id, each.reason) for each in wanted
    ]
    assert sum(each.reason == "empty_response" for each in found) == 2
    rewards = [each.reward for each in wanted if each.reward is not None]
    assert max(rewards) - min(rewards) > 0.1  # they say something
    # float32 in both, sums in another order.
    assert [each.reward for each in found if each.reward is not None] == pytest.approx(
        rewards, abs=1e-4 * max(map(abs, rewards))
    )
    assert found[0].reward == found[4].reward  # equal texts
