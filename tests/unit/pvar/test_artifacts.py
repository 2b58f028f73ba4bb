"""The artifact contract: identity, shard plans, and row counts that add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.artifacts import Manifest, Recipe, ShardRecord, ShardSpec, plan_shards, total_row_counts
from pvar.row_counts import RowCounts

RECIPE = Recipe(stage="sample", version=1, identity={"seed": 0}, inputs={"prompts": "ab"})


@given(num_rows=st.integers(0, 500), rows_per_shard=st.integers(1, 100))
def test_every_row_is_in_exactly_one_shard(num_rows: int, rows_per_shard: int) -> None:
    # 40 rows by 39 are two shards, of 39 and of 1.
    shards = plan_shards(num_rows, rows_per_shard)
    rows = [row for shard in shards for row in range(shard.start, shard.stop)]
    assert rows == list(range(num_rows))
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert all(shard.stop - shard.start <= rows_per_shard for shard in shards)


def test_the_last_shard_holds_the_rest() -> None:
    assert [(each.start, each.stop) for each in plan_shards(40, 39)] == [(0, 39), (39, 40)]


def test_no_rows_are_one_empty_shard() -> None:
    assert plan_shards(0, 10) == (ShardSpec(index=0, start=0, stop=0),)


def test_names_of_shards_sort_like_numbers() -> None:
    names = [shard.name for shard in plan_shards(1200, 1)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "score"},
        {"version": 2},
        {"identity": {"seed": 1}},
        {"inputs": {"prompts": "cd"}},
        {"inputs": {"others": "ab"}},
    ],
)
def test_identity_is_stage_version_configuration_and_inputs(change: dict[str, object]) -> None:
    assert RECIPE.model_copy(update=change).digest != RECIPE.digest


@pytest.mark.parametrize(
    "change", [{"shards": plan_shards(100, 7)}, {"made_from": {"prompts": "0" * 64}}]
)
def test_the_plan_and_the_content_of_inputs_are_not_identity(change: dict[str, object]) -> None:
    assert RECIPE.model_copy(update=change).digest == RECIPE.digest


def test_the_total_is_the_sum_of_the_shards() -> None:
    records = {
        index: ShardRecord(index=index, folder="", files=(), row_counts=row_counts)
        for index, row_counts in enumerate(
            [
                RowCounts(rows_in=4, rows_out=3, rejected={"too_long": 1}),
                RowCounts(rows_in=2, rows_out=0, rejected={"too_long": 1, "empty": 1}),
            ]
        )
    }
    assert total_row_counts(records) == RowCounts(
        rows_in=6, rows_out=3, rejected={"empty": 1, "too_long": 2}
    )


def test_the_bytes_of_a_manifest_do_not_depend_on_when_it_is_written() -> None:
    manifest = Manifest(
        stage="sample",
        version=1,
        digest="ab",
        inputs={},
        shards=(),
        row_counts=RowCounts(rows_in=0, rows_out=0),
        summary={"mean": 0.1, "none": None, "text": "ä"},
    )
    assert manifest.to_json() == manifest.model_copy().to_json()
    assert Manifest.model_validate_json(manifest.to_json()) == manifest


def test_only_an_erasure_changes_the_bytes_of_a_manifest_and_never_its_name() -> None:
    manifest = Manifest(
        stage="sample",
        version=1,
        digest="ab",
        inputs={"prompts": "cd"},
        shards=(),
        row_counts=RowCounts(rows_in=0, rows_out=0),
        summary={"mean": 0.1, "none": None},
    )
    # Of the bytes before there were erasures, by which existing stores name their inputs.
    before = "8a34057b43191ac66bad9936d37513de65faa3d78037f08359fba047876e4707"
    assert manifest.first_sha256 == before
    erased = manifest.model_copy(update={"erased_from": before, "shards": ()})
    assert erased.to_json() != manifest.to_json()
    assert Manifest.model_validate_json(erased.to_json()) == erased
    assert erased.first_sha256 == before
