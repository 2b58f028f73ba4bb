"""Rows erased from artifacts: what stays is complete, and valid for what was made from it."""

from pathlib import Path

import pytest

from pvar.errors import IncompleteError
from pvar.exclusion import Exclusion
from pvar.ports import Store
from pvar.records import Response, Score
from tasks.engine.artifact import Artifact, ArtifactKeys, open_artifact
from tasks.engine.erasure import (
    Passage,
    clean_up,
    erase_rows,
    has_leftovers,
    holds_rows,
    passages_to_erase,
    rows_to_erase,
)
from tasks.engine.stale_artifact import manifest_digests
from tasks.engine.tables import RejectedRow, write_table
from tests.artifacts import put_artifact

WITHDRAWN = {"a" * 16}
SCORES = [Score("a" * 16, "r1", 0.5, None), Score("b" * 16, "r2", None, "failed")]
REJECTED = [
    RejectedRow("line 3", "chosen_without_rejected", "{'prompt': 'the withdrawn one'}"),
    RejectedRow("a" * 16, "near_duplicate", "like b"),
    RejectedRow("c" * 16, "contaminated", "exam:1: shared"),
]


def put(store: Store, scratch: Path, *, is_complete: bool = True) -> ArtifactKeys:
    scratch.mkdir(exist_ok=True)
    write_table(scratch / "scores", SCORES, Score)
    write_table(scratch / "rejected", REJECTED, RejectedRow)
    tables = {f"{name}.parquet": (scratch / name).read_bytes() for name in ("scores", "rejected")}
    files = {**tables, "model/weights.bin": b"\x00\x01"}
    return put_artifact(store, "score", files=files, is_complete=is_complete)


def reopened(store: Store, keys: ArtifactKeys, cache: Path) -> Artifact:
    return open_artifact(store, keys.stage, keys.digest, cache)


def erased(store: Store, keys: ArtifactKeys, folder: Path) -> Artifact:
    artifact = reopened(store, keys, folder / "before")
    erase_rows(artifact, rows_to_erase(artifact, WITHDRAWN), WITHDRAWN, folder / "put")
    return reopened(store, keys, folder / "after")


def test_rows_go_and_the_rest_stays_verified(file_store: Store, tmp_path: Path) -> None:
    keys = put(file_store, tmp_path / "scratch")
    before = reopened(file_store, keys, tmp_path / "look")
    tables = rows_to_erase(before, WITHDRAWN)
    assert [(each.name, each.num_rows) for each in sorted(tables)] == [
        ("rejected.parquet", 1), ("scores.parquet", 1),
    ]  # fmt: skip
    after = erased(file_store, keys, tmp_path)
    assert after.rows("scores.parquet", Score) == SCORES[1:]
    # A line that is named by its number may quote the prompt.
    assert after.rows("rejected.parquet", RejectedRow) == [
        REJECTED[0]._replace(detail=""), REJECTED[2],
    ]  # fmt: skip
    assert after.folder("model").joinpath("weights.bin").read_bytes() == b"\x00\x01"
    assert after.manifest.row_counts == before.manifest.row_counts
    assert not has_leftovers(file_store, keys, after.manifest)
    assert rows_to_erase(after, WITHDRAWN) == []


def test_what_was_made_from_it_stays_valid(file_store: Store, tmp_path: Path) -> None:
    keys = put(file_store, tmp_path / "scratch")
    before = manifest_digests({"scores": reopened(file_store, keys, tmp_path / "look")})
    after = erased(file_store, keys, tmp_path)
    assert manifest_digests({"scores": after}) == before
    # And so after the next one.
    tables = rows_to_erase(after, {"b" * 16})
    erase_rows(after, tables, {"b" * 16}, tmp_path / "put-2")
    again = reopened(file_store, keys, tmp_path / "again")
    assert again.rows("scores.parquet", Score) == []
    assert manifest_digests({"scores": again}) == before


def test_a_reader_that_comes_too_late_discards_nothing(file_store: Store, tmp_path: Path) -> None:
    keys = put(file_store, tmp_path / "scratch")
    late = reopened(file_store, keys, tmp_path / "late")
    after = erased(file_store, keys, tmp_path)
    with pytest.raises(IncompleteError, match="were erased meanwhile"):
        late.rows("scores.parquet", Score)
    assert reopened(file_store, keys, tmp_path / "later").manifest == after.manifest


def test_files_of_workers_that_came_too_late_are_deleted(file_store: Store, tmp_path: Path) -> None:
    keys = put(file_store, tmp_path / "scratch")
    file_store.write(f"{keys.root}/shards/00000-late/scores.parquet", b"of another worker")
    artifact = reopened(file_store, keys, tmp_path / "look")
    assert has_leftovers(file_store, keys, artifact.manifest)
    clean_up(file_store, keys, artifact.manifest)
    assert not has_leftovers(file_store, keys, artifact.manifest)
    assert len(reopened(file_store, keys, tmp_path / "after").rows("scores.parquet", Score)) == 2


def test_an_incomplete_artifact_is_looked_through(file_store: Store, tmp_path: Path) -> None:
    keys = put(file_store, tmp_path / "scratch", is_complete=False)
    assert holds_rows(file_store, keys, WITHDRAWN, tmp_path / "table")
    assert not holds_rows(file_store, keys, {"f" * 16}, tmp_path / "table")
    file_store.write(f"{keys.root}/shards/00001-part/scores.parquet", b"not a table")
    assert holds_rows(file_store, keys, {"f" * 16}, tmp_path / "table")


def test_a_withdrawn_exam_prompt_is_not_quoted(file_store: Store, tmp_path: Path) -> None:
    rows = [
        Exclusion("b" * 16, "exam", "a" * 16, "same_text", "the withdrawn one"),
        Exclusion("c" * 16, "exam", "d" * 16, "same_text", "another one"),
    ]
    write_table(tmp_path / "table", rows, Exclusion)
    files = {"excluded.parquet": (tmp_path / "table").read_bytes()}
    after = erased(file_store, put_artifact(file_store, "exclude", files=files), tmp_path)
    # The training prompt stays excluded.
    assert after.rows("excluded.parquet", Exclusion) == [rows[0]._replace(shared=""), rows[1]]


def test_the_texts_of_the_rows_are_known_before(file_store: Store, tmp_path: Path) -> None:
    rows = [Response(name * 16, f"{name}-1", 0, f"answer {name}", 3, "stop") for name in ("a", "b")]
    write_table(tmp_path / "table", rows, Response)
    files = {"responses.parquet": (tmp_path / "table").read_bytes()}
    artifact = reopened(file_store, put_artifact(file_store, "sample", files=files), tmp_path)
    passages = passages_to_erase(artifact, rows_to_erase(artifact, WITHDRAWN), WITHDRAWN)
    assert list(passages) == [Passage("a" * 16, "answer a")]
