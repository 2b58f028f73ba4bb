"""`kill -9` while vLLM samples: what is recorded is not sampled again."""

from pathlib import Path
from typing import Any

import pytest

from pvar.records import Response
from tests.integration.test_kill import kill_when, records
from tests.services.packages import NEEDS_SMOLLM2, NEEDS_VLLM
from tests.workflow import start_workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # vLLM starts twice
    NEEDS_VLLM,
    NEEDS_SMOLLM2,
    # Of libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHANGES: dict[str, Any] = {
    "sample": {"engine": "vllm", "num_responses": 2, "max_new_tokens": 16},
    "runtime": {
        "prompts_per_shard": 2,
        "lease_seconds": 60,
        "vllm": {"enforce_eager": True, "kv_cache_gib": 1},
    },
}


def test_shards_that_vllm_finished_before_a_kill_are_kept(smollm2: Path, tmp_path: Path) -> None:
    changes = CHANGES | {"policy": str(smollm2)}
    flow = start_workflow(tmp_path / "home", **changes)
    flow.make("ingest")

    kill_when(flow, changes, "sample", lambda: records(flow, "sample") >= 2, delay=0.05)
    num_recorded = records(flow, "sample")
    kept = flow.objects("sample")
    again = flow.make("sample")

    manifest = again.artifact.manifest
    assert num_recorded >= 2
    assert again.shards_made == len(manifest.shards) - num_recorded >= 1
    after = flow.objects("sample")
    # Documents and shards are as they were; a file of the shard that was in the making may differ.
    recorded = {key for key in kept if key.endswith(".json")}
    assert {key: after[key] for key in recorded} == {key: kept[key] for key in recorded}
    responses = again.artifact.rows("responses.parquet", Response)
    assert len({each.response_id for each in responses}) == manifest.accounts.rows_out
    assert manifest.accounts.rows_in == manifest.accounts.rows_out == len(responses)
