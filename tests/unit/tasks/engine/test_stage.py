"""How a stage comes to its artifact: resumed, verified, done once, and never from stale inputs."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Any, cast

import pytest

from infra.engines.fake_sampler import FakeSampler
from pvar.artifacts import Recipe, ShardRecord, ShardSpec
from pvar.errors import DamagedError, IncompleteError, LeaseError, ModelError, StageError
from pvar.ports import Ports, Sampler, SampleRequest, Store
from pvar.records import Response, Score
from pvar.sampler_config import SamplerSettings
from tasks.engine.lease import LeaseRecord, LeaseWatch, hold
from tasks.engine.shard_records import is_recorded
from tasks.engine.stage import run_stage
from tasks.engine.stale_artifact import discard_stale
from tests.services.processes import NEVER_SECONDS, wait_until
from tests.services.s3 import S3Server
from tests.workflow import Workflow, start_workflow


@pytest.fixture
def flow(tmp_path: Path) -> Workflow:
    """Prompts are ingested: 21 for training, 11 held out; sampling takes 6 shards of 4 prompts."""
    workflow = start_workflow(tmp_path)
    workflow.make("ingest")
    return workflow


def flip_byte(flow: Workflow, key: str, position: int = 100) -> None:
    data = bytearray(flow.store.read(key))
    data[position] ^= 1
    flow.store.write(key, bytes(data))


def a_file(flow: Workflow, name: str, shard: int) -> str:
    """Key of the first file of a shard."""
    record = flow.artifact(name).manifest.shards[shard]
    return f"{flow.nodes[name].keys.root}/{record.folder}/{record.files[-1].name}"


def test_the_recipe_is_first_and_says_exactly_what_is_hashed(flow: Workflow) -> None:
    flow.make("sample")
    node = flow.nodes["sample"]
    recipe = Recipe.model_validate_json(flow.store.read(node.keys.recipe))
    assert recipe.digest == node.keys.digest
    assert recipe.inputs == {"prompts": flow.nodes["ingest"].keys.digest}
    assert [(shard.start, shard.stop) for shard in recipe.shards] == [
        (0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 21),
    ]  # fmt: skip


def test_a_complete_artifact_is_reused(flow: Workflow) -> None:
    made = flow.make("sample")
    before = flow.objects("sample")
    again = flow.make("sample")
    assert (made.shards_made, again.shards_made, again.reused) == (6, 0, True)
    assert flow.objects("sample") == before


def test_runtime_settings_do_not_change_the_artifact(flow: Workflow) -> None:
    runtime = flow.config.runtime.model_copy(
        update={"sampled_responses_per_shard": 8, "lease_seconds": 7}
    )
    other = Workflow(flow.config.model_copy(update={"runtime": runtime}), flow.wiring)
    assert other.nodes["sample"].keys == flow.nodes["sample"].keys
    flow.make("sample")
    assert other.make("sample").reused


def test_a_plan_that_was_begun_is_kept_by_a_run_with_other_shards(flow: Workflow) -> None:
    whole = flow.make("sample").artifact.manifest
    record = flow.nodes["sample"].keys.record(3)
    flow.store.delete(flow.nodes["sample"].keys.manifest)
    flow.store.delete(record)
    runtime = flow.config.runtime.model_copy(update={"sampled_responses_per_shard": 40})
    other = Workflow(flow.config.model_copy(update={"runtime": runtime}), flow.wiring)
    again = other.make("sample")
    assert again.shards_made == 1
    assert again.artifact.manifest == whole


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_a_shard_that_is_short_or_gone_is_made_anew_alone(flow: Workflow, damage: str) -> None:
    whole = flow.make("sample").artifact.manifest
    key = a_file(flow, "sample", 2)
    if damage == "truncated":
        flow.store.write(key, flow.store.read(key)[:-1])
    else:
        flow.store.delete(key)
    again = flow.make("sample")
    assert again.shards_made == 1
    assert again.artifact.manifest == whole  # the same bytes, so nothing after it is stale
    assert flow.make("sample").reused


def test_a_flipped_byte_is_found_when_it_is_read_and_its_shard_made_anew(flow: Workflow) -> None:
    whole = flow.make("sample").artifact.manifest
    flip_byte(flow, a_file(flow, "sample", 2))
    with pytest.raises(DamagedError, match=r"shard 2 of sample/\w+ was discarded.*`pvar run`"):
        flow.make("score-vader")
    with pytest.raises(IncompleteError, match=r"run stage sample first"):
        flow.make("score-vader")
    again = flow.make("sample")
    assert (again.shards_made, again.artifact.manifest) == (1, whole)
    flow.make("score-vader")


def test_documents_that_cannot_be_read_say_what_to_delete(flow: Workflow) -> None:
    flow.make("sample")
    flow.store.write(flow.nodes["sample"].keys.manifest, b'{"stage": "sam')
    with pytest.raises(
        DamagedError, match=r"manifest\.json is not a valid manifest.*delete that object"
    ):
        flow.make("sample")


def test_a_recipe_of_something_else_is_not_taken_over(flow: Workflow) -> None:
    keys = flow.nodes["sample"].keys
    flow.make("sample")
    recipe = Recipe.model_validate_json(flow.store.read(keys.recipe))
    flow.store.delete(keys.manifest)
    flow.store.write(keys.recipe, recipe.model_copy(update={"version": 9}).to_json())
    with pytest.raises(DamagedError, match=r"is not the recipe of sample/"):
        flow.make("sample")


@dataclass(frozen=True)
class OtherEngine:
    """Ports whose sampler answers otherwise under the same digest, as real engines may."""

    ports: Ports

    def sampler(self, settings: SamplerSettings, *_: object) -> Sampler:
        # With this limit some of the prompts, of 5 to 8 words, are rejected.
        return FakeSampler(max_prompt_tokens=5, max_new_tokens=settings.max_new_tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ports, name)


def make_again_otherwise(flow: Workflow, name: str) -> None:
    """Lose an artifact and make it again with other content."""
    node = flow.nodes[name]
    for info in list(flow.store.list(f"{node.keys.root}/")):
        flow.store.delete(info.key)
    job = replace(flow.job(name), ports=OtherEngine(flow.wiring))
    run_stage(node.stage, node.recipe, job)


def test_an_input_made_again_with_other_content_makes_the_rest_stale(flow: Workflow) -> None:
    flow.make("sample", "score-vader", "select")
    before = {name: flow.artifact(name).manifest for name in ("score-vader", "select")}
    make_again_otherwise(flow, "sample")
    responses = flow.artifact("sample").rows("responses.parquet", Response)
    assert 0 < len(responses) < 84

    scored = flow.make("score-vader")
    # Planned anew as well: as many shards of 16 responses as there are now.
    assert scored.shards_made == -(-len(responses) // 16) < 6
    assert scored.artifact.manifest.row_counts.rows_in == len(responses)
    scores = scored.artifact.rows("scores.parquet", Score)
    assert [each.response_id for each in scores] == [each.response_id for each in responses]
    assert flow.make("select").artifact.manifest.inputs != before["select"].inputs


def test_half_made_work_from_an_earlier_input_is_not_completed(flow: Workflow) -> None:
    flow.make("sample", "score-vader")
    keys = flow.nodes["score-vader"].keys
    flow.store.delete(keys.manifest)
    flow.store.delete(keys.record(5))
    make_again_otherwise(flow, "sample")
    responses = flow.artifact("sample").rows("responses.parquet", Response)
    scores = flow.make("score-vader").artifact.rows("scores.parquet", Score)
    assert [each.response_id for each in scores] == [each.response_id for each in responses]


def test_who_still_works_on_stale_inputs_is_not_pushed_aside(flow: Workflow) -> None:
    flow.make("sample", "score-vader")
    make_again_otherwise(flow, "sample")
    keys = flow.nodes["score-vader"].keys
    with hold(flow.store, keys.lease(3)), pytest.raises(LeaseError, match="is held by process"):
        flow.make("score-vader")
    flow.make("score-vader")


class SlowDeletions:
    """A store whose first deletion takes until all leases below a folder have been renewed."""

    def __init__(self, store: Store, leases: str) -> None:
        self._store, self._leases = store, leases
        self._is_first = True

    def delete(self, key: str) -> None:
        if self._is_first:
            wait_until(self._are_renewed, "a renewal of all leases", pause_seconds=0.05)
        self._is_first = False
        self._store.delete(key)

    def _are_renewed(self) -> bool:
        newest = LeaseWatch().survey(self._store, self._leases).newest.values()
        records = [LeaseRecord.model_validate_json(self._store.read(each.key)) for each in newest]
        return all(record.counter and not record.is_released for record in records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_leases_are_renewed_while_what_is_stale_is_discarded(flow: Workflow) -> None:
    """Many objects take longer than the leases live; nobody else may begin meanwhile."""
    flow.make("sample", "score-vader")
    make_again_otherwise(flow, "sample")
    keys, inputs = flow.nodes["score-vader"].keys, flow.job("score-vader").inputs
    recipe = Recipe.model_validate_json(flow.store.read(keys.recipe))
    slow = cast(Store, SlowDeletions(flow.store, f"{keys.root}/leases/"))
    discard_stale(slow, keys, recipe, inputs, ttl_seconds=0.4)
    assert set(flow.objects("score-vader")) == set()
    flow.make("score-vader")


def test_made_again_with_the_same_content_nothing_is_stale(flow: Workflow) -> None:
    flow.make("sample", "score-vader")
    for info in list(flow.store.list(f"{flow.nodes['sample'].keys.root}/")):
        flow.store.delete(info.key)
    assert flow.make("sample").shards_made == 6
    assert flow.make("score-vader").reused


def test_a_shard_of_another_plan_is_made_again(flow: Workflow) -> None:
    flow.make("sample")
    keys = flow.nodes["sample"].keys
    record = ShardRecord.model_validate_json(flow.store.read(keys.record(3)))
    recipe = Recipe.model_validate_json(flow.store.read(keys.recipe))
    assert record.plan == recipe.plan_digest
    assert b'"plan"' not in flow.store.read(keys.manifest)

    for plan, num_made in (("0123456789abcdef", 1), (None, 0)):  # earlier versions say nothing
        other = record.model_copy(update={"plan": plan})
        flow.store.write(keys.record(3), other.to_json())
        flow.store.delete(keys.manifest)
        assert flow.make("sample").shards_made == num_made


def test_a_process_with_an_earlier_plan_discards_nothing(flow: Workflow) -> None:
    flow.make("sample")
    keys, shard = flow.nodes["sample"].keys, ShardSpec(index=3, start=12, stop=16)
    with pytest.raises(StageError, match="its inputs were made again"):
        is_recorded(flow.store, keys, "0123456789abcdef", shard, {})
    assert flow.make("sample").reused


def test_stale_training_does_not_go_on_from_old_checkpoints(flow: Workflow) -> None:
    flow.make("sample", "score-vader")
    keys = flow.nodes["score-vader"].keys
    flow.store.write(f"{keys.root}/checkpoints/00000002.json", b"{}")
    make_again_otherwise(flow, "sample")
    flow.make("score-vader")
    assert list(flow.store.list(f"{keys.root}/checkpoints/")) == []


@dataclass(frozen=True)
class Counting:
    """Ports that count the prompts that each sampler is asked for, and can wait in between."""

    ports: Ports
    asked: list[str]
    pause: Callable[[], object]

    def sampler(self, settings: SamplerSettings, *rest: Any) -> Sampler:
        return cast(Sampler, _CountingSampler(self, self.ports.sampler(settings, *rest)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ports, name)


@dataclass(frozen=True)
class _CountingSampler:
    counting: Counting
    sampler: Sampler

    def sample(self, requests: Sequence[SampleRequest], **options: Any) -> Any:
        self.counting.pause()
        self.counting.asked.extend(request.prompt_id for request in requests)
        return self.sampler.sample(requests, **options)

    def close(self) -> None:
        self.sampler.close()


@pytest.fixture(params=["file", "s3"])
def flow_on(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    moto_s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Workflow:
    """The workflow over each kind of store."""
    if request.param == "file":
        workflow = start_workflow(tmp_path)
    else:
        for name, value in moto_s3.environment().items():
            monkeypatch.setenv(name, value)
        workflow = start_workflow(tmp_path, store_uri=f"s3://{moto_s3.new_bucket()}/artifacts")
    workflow.make("ingest")
    return workflow


def test_two_runs_at_once_share_the_shards_and_do_none_twice(flow_on: Workflow) -> None:
    # Each waits for the other before its first shard, so both are at work at the same time.
    both = Barrier(2)
    met: list[int] = []

    def meet() -> None:
        if len(met) < 2:
            met.append(both.wait(NEVER_SECONDS))

    node = flow_on.nodes["sample"]
    asked: list[str] = []
    jobs = [
        replace(flow_on.job("sample"), ports=Counting(flow_on.wiring, asked, meet)) for _ in "ab"
    ]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda job: run_stage(node.stage, node.recipe, job), jobs))

    assert sorted(outcome.shards_made for outcome in outcomes)[0] >= 1
    assert sum(outcome.shards_made for outcome in outcomes) == 6
    assert len(asked) == len(set(asked)) == 21
    assert outcomes[0].artifact.manifest == outcomes[1].artifact.manifest


def test_a_shard_that_fails_leaves_the_others_and_its_lease(flow: Workflow) -> None:
    asked: list[str] = []

    def fail_in_the_third() -> None:
        if len(asked) == 8:  # two shards of four prompts are done
            raise ModelError("out of luck")

    node = flow.nodes["sample"]
    failing = replace(flow.job("sample"), ports=Counting(flow.wiring, asked, fail_in_the_third))
    with pytest.raises(ModelError, match="out of luck"):
        run_stage(node.stage, node.recipe, failing)
    with pytest.raises(IncompleteError, match="no manifest"):
        flow.artifact("sample")
    assert flow.make("sample").shards_made == 4


def test_a_shard_whose_inputs_are_made_again_meanwhile_is_not_recorded(flow: Workflow) -> None:
    node = flow.nodes["sample"]

    def begin_anew() -> None:  # what another process does that finds other prompts
        recipe = Recipe.model_validate_json(flow.store.read(node.keys.recipe))
        today = recipe.model_copy(update={"made_from": {"prompts": "other content"}})
        flow.store.write(node.keys.recipe, today.to_json())

    overtaken = replace(flow.job("sample"), ports=Counting(flow.wiring, [], begin_anew))
    with pytest.raises(StageError, match="inputs were made again while shard 0 was made"):
        run_stage(node.stage, node.recipe, overtaken)
    assert "shards/00000.json" not in flow.objects("sample")
