"""Training goes on from the newest checkpoint that is whole, or from none."""

from pathlib import Path

import pytest

from pvar.ports import Store
from tasks.training.checkpoints import delete_checkpoints, newest_checkpoint, save_checkpoint

PREFIX = "train/ab/checkpoints"
PLAN = "0123456789abcdef"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A checkpoint as a trainer writes it: files, also in folders."""
    folder = tmp_path / "checkpoint-4"
    (folder / "adapter").mkdir(parents=True)
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    (folder / "adapter" / "weights.bin").write_bytes(bytes(range(256)))
    return folder


def content(folder: Path | None) -> dict[str, bytes]:
    assert folder is not None
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def keys(store: Store) -> list[str]:
    return [info.key.removeprefix(f"{PREFIX}/") for info in store.list(PREFIX)]


def test_what_was_saved_comes_back(file_store: Store, local: Path, tmp_path: Path) -> None:
    save_checkpoint(file_store, PREFIX, PLAN, 4, local)
    found = newest_checkpoint(file_store, PREFIX, PLAN, tmp_path / "resume")
    assert content(found) == content(local)
    assert found is not None
    assert found.name == "checkpoint-4"  # the trainer reads the step from the name


def test_there_may_be_none(file_store: Store, tmp_path: Path) -> None:
    assert newest_checkpoint(file_store, PREFIX, PLAN, tmp_path) is None


def test_only_the_newest_is_kept(file_store: Store, local: Path, tmp_path: Path) -> None:
    for step in (4, 8, 12):
        save_checkpoint(file_store, PREFIX, PLAN, step, local)
    assert {key[:8] for key in keys(file_store)} == {"00000012"}


def test_one_that_was_interrupted_does_not_count(
    file_store: Store, local: Path, tmp_path: Path
) -> None:
    save_checkpoint(file_store, PREFIX, PLAN, 4, local)
    file_store.upload(local / "trainer_state.json", f"{PREFIX}/00000008/trainer_state.json")
    found = newest_checkpoint(file_store, PREFIX, PLAN, tmp_path / "resume")
    assert found is not None
    assert found.name == "checkpoint-4"


@pytest.mark.parametrize("damage", ["flipped", "gone", "no marker"])
def test_a_damaged_one_is_left_for_an_older_one(
    file_store: Store, local: Path, tmp_path: Path, damage: str
) -> None:
    save_checkpoint(file_store, PREFIX, PLAN, 8, local)
    weights, marker = f"{PREFIX}/00000008/adapter/weights.bin", f"{PREFIX}/00000008.json"
    newer = {info.key: file_store.read(info.key) for info in file_store.list(PREFIX)}
    save_checkpoint(file_store, PREFIX, PLAN, 4, local)  # deletes the other: put it back, damaged
    for key, data in newer.items():
        file_store.write(key, data)
    match damage:
        case "flipped":
            file_store.write(weights, bytes([1, *range(1, 256)]))
        case "gone":
            file_store.delete(weights)
        case _:
            file_store.write(marker, b'{"step": 8')
    found = newest_checkpoint(file_store, PREFIX, PLAN, tmp_path / "resume")
    assert found is not None
    assert found.name == "checkpoint-4"
    assert content(found) == content(local)


def test_one_of_a_training_on_earlier_inputs_is_left(
    file_store: Store, local: Path, tmp_path: Path
) -> None:
    save_checkpoint(file_store, PREFIX, "fedcba9876543210", 8, local)
    assert newest_checkpoint(file_store, PREFIX, PLAN, tmp_path / "resume") is None


def test_all_can_be_deleted(file_store: Store, local: Path) -> None:
    save_checkpoint(file_store, PREFIX, PLAN, 4, local)
    delete_checkpoints(file_store, PREFIX)
    assert keys(file_store) == []
