"""Retention: what is needed stays, whatever needs it; the rest goes, in an order that can die."""

import pytest

from pvar.artifacts import Recipe
from pvar.errors import StoreError
from pvar.ports import ObjectInfo, Store
from pvar.reward_config import ImplicitReward
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.garbage import Plan, delete_artifact, plan_gc
from tasks.engine.lease import LeaseWatch, try_acquire
from tasks.engine.lineage import list_artifacts, read_lineage
from tasks.stages.score import ScoreSpec
from tests.artifacts import put_artifact
from tests.lease_time import ELSEWHERE, stepped_time

STAGES = ("ingest", "sample", "train", "evaluate")


def plan(store: Store, *named: str, watch: LeaseWatch | None = None) -> Plan:
    listing = list_artifacts(store, STAGES)
    lineage = read_lineage(store, listing)
    return plan_gc(store, lineage, listing, set(named), watch or LeaseWatch())


def roots(planned: Plan) -> list[str]:
    return [garbage.root for garbage in planned.artifacts]


def chain(store: Store, name: str) -> list[ArtifactKeys]:
    """ingest → sample → train, of their own."""
    ingest = put_artifact(store, "ingest", config={"source": name})
    sample = put_artifact(store, "sample", config={"policy": name}, inputs={"prompts": ingest})
    train = put_artifact(store, "train", config={"policy": name}, inputs={"pairs": sample})
    return [ingest, sample, train]


def test_a_named_artifact_stays_with_everything_it_was_made_from(file_store: Store) -> None:
    needed, other = chain(file_store, "a"), chain(file_store, "b")
    planned = plan(file_store, needed[2].root)
    assert sorted(roots(planned)) == sorted(keys.root for keys in other)
    assert planned.num_needed == 3


def test_without_a_name_everything_goes_and_results_before_their_inputs(file_store: Store) -> None:
    ingest, sample, train = chain(file_store, "a")
    assert roots(plan(file_store)) == [train.root, sample.root, ingest.root]


def test_what_two_have_in_common_stays_for_the_one_that_stays(file_store: Store) -> None:
    ingest = put_artifact(file_store, "ingest", config={"source": "a"})
    kept = put_artifact(file_store, "sample", config={"seed": 1}, inputs={"prompts": ingest})
    gone = put_artifact(file_store, "sample", config={"seed": 2}, inputs={"prompts": ingest})
    assert roots(plan(file_store, kept.root)) == [gone.root]


def test_the_policy_that_a_needed_model_was_trained_from_stays(file_store: Store) -> None:
    first = put_artifact(file_store, "train", config={"policy": "start-1"})
    second = put_artifact(file_store, "train", config={"policy": first.root})
    assert roots(plan(file_store, second.root)) == []


def test_both_models_of_an_implicit_reward_stay(file_store: Store) -> None:
    tuned, start = (put_artifact(file_store, "train", config={"seed": seed}) for seed in (1, 2))
    reward = ImplicitReward(
        policy=f"artifact:{tuned.root}#{tuned.root}",
        reference=f"artifact:{start.root}#{start.root}",
    )
    recipe = Recipe.of("score", 1, ScoreSpec(reward_model=reward), {})
    scores = ArtifactKeys("score", recipe.digest)
    file_store.write(scores.recipe, recipe.to_json())
    listing = list_artifacts(file_store, ("train", "score"))
    graph = read_lineage(file_store, listing)
    assert [link.role for link in graph.entries[scores.root].made_from] == ["policy", "reference"]
    planned = plan_gc(file_store, graph, listing, {scores.root}, LeaseWatch())
    assert roots(planned) == []


def test_a_cache_stays_for_as_long_as_what_it_was_made_from(file_store: Store) -> None:
    kept, gone = chain(file_store, "a"), chain(file_store, "b")
    caches = [
        put_artifact(
            file_store, "reference", config={"of": keys[1].digest}, inputs={"pairs": keys[1]}
        )
        for keys in (kept, gone)
    ]
    listing = list_artifacts(file_store, (*STAGES, "reference"))
    lineage = read_lineage(file_store, listing)
    planned = plan_gc(
        file_store, lineage, listing, {kept[2].root}, LeaseWatch(), caches=("reference",)
    )
    assert sorted(roots(planned)) == sorted(keys.root for keys in (*gone, caches[1]))


def test_unfinished_and_broken_off_artifacts_are_garbage_too(file_store: Store) -> None:
    half = put_artifact(file_store, "train", is_complete=False)
    file_store.write("train/00000000000000aa/shards/00000-ab/file", b"left by a deletion")
    assert sorted(roots(plan(file_store))) == ["train/00000000000000aa", half.root]


def test_what_is_leased_stays_with_its_inputs(file_store: Store) -> None:
    ingest, sample, train = chain(file_store, "a")
    lease = try_acquire(file_store, train.lease(0), ttl_seconds=60)
    assert lease is not None
    assert roots(plan(file_store)) == []
    assert not delete_artifact(file_store, train.root, LeaseWatch())
    lease.release()
    assert roots(plan(file_store)) == [train.root, sample.root, ingest.root]
    assert delete_artifact(file_store, train.root, LeaseWatch())
    assert list(file_store.list(f"{train.root}/")) == []


def test_leases_of_other_machines_are_watched_together(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = stepped_time(monkeypatch)
    dead, alive = (put_artifact(file_store, "train", config={"seed": seed}) for seed in (1, 2))
    assert try_acquire(file_store, dead.lease(0), ttl_seconds=60, holder=ELSEWHERE)
    lease = try_acquire(file_store, alive.lease(0), ttl_seconds=60, holder=ELSEWHERE)
    assert lease is not None
    began, watch = clock.seconds, LeaseWatch()

    def sleep(seconds: float) -> None:
        clock.seconds += seconds
        lease.renew()

    monkeypatch.setattr(clock, "sleep", sleep)
    assert roots(plan(file_store, watch=watch)) == [dead.root]
    assert 60 <= clock.seconds - began < 62
    assert delete_artifact(file_store, dead.root, watch)  # it has been watched
    assert clock.seconds - began < 62
    assert not delete_artifact(file_store, alive.root, watch)


def test_a_lease_that_cannot_be_read_counts_as_live(file_store: Store) -> None:
    keys = put_artifact(file_store, "train")
    file_store.write(f"{keys.lease(0)}/000001.json", b"of another version")
    assert roots(plan(file_store)) == []


def test_leases_of_the_past_are_stale(file_store: Store) -> None:
    done = put_artifact(file_store, "train", config={"seed": 1})
    begun = put_artifact(file_store, "train", config={"seed": 2}, is_complete=False)
    at_work = put_artifact(file_store, "train", config={"seed": 3})
    for keys in (done, begun, at_work):
        for _ in range(2):  # the second takes over from the first
            lease = try_acquire(file_store, keys.lease(0))
            assert lease is not None
            lease.release()
    assert try_acquire(file_store, at_work.lease(0)) is not None
    planned = plan(file_store, done.root, begun.root, at_work.root)
    assert sorted(info.key for info in planned.stale_leases) == sorted(
        [
            f"{done.lease(0)}/000001.json",
            f"{done.lease(0)}/000002.json",
            # Numbers must not come back while work may be left: the last one stays.
            f"{begun.lease(0)}/000001.json",
        ]
    )


def test_other_parts_of_the_store_are_not_looked_at(file_store: Store) -> None:
    for key in (
        "verdicts/ab/cd.json",
        "registry/m/000001.json",
        "mlflow/0/models/x",
        "runs/r.json",
    ):
        file_store.write(key, b"{}")
    assert roots(plan(file_store)) == []


def test_the_plan_says_how_much_it_is(file_store: Store) -> None:
    keys = put_artifact(file_store, "train", files={"model/weights": bytes(1000)})
    (garbage,) = plan(file_store).artifacts
    sizes = [info.num_bytes for info in file_store.list(f"{keys.root}/")]
    assert (garbage.num_bytes, garbage.num_objects) == (sum(sizes), len(sizes))
    assert garbage.num_bytes > 1000


class BreaksDown:
    """A store on which the deletion of one object fails."""

    def __init__(self, store: Store, after: int) -> None:
        self._store = store
        self._left = after

    def delete(self, key: str) -> None:
        if self._left == 0:
            raise StoreError("gone")
        self._left -= 1
        self._store.delete(key)

    def list(self, prefix: str) -> list[ObjectInfo]:
        return list(self._store.list(prefix))


@pytest.mark.parametrize("num_deleted", [1, 2, 3])
def test_a_deletion_that_breaks_off_leaves_nothing_that_looks_complete(
    file_store: Store, num_deleted: int
) -> None:
    # Four objects: recipe, shard file, shard record, manifest.
    keys = put_artifact(file_store, "train")
    broken: Store = BreaksDown(file_store, num_deleted)  # type: ignore[assignment]
    with pytest.raises(StoreError):
        delete_artifact(broken, keys.root, LeaseWatch())
    left = {info.key for info in file_store.list(f"{keys.root}/")}
    assert len(left) == 4 - num_deleted
    assert keys.manifest not in left
    assert keys.recipe in left
    assert roots(plan(file_store)) == [keys.root]
