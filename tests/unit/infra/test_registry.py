"""The registry on MLflow with a database: one winner, no move without a record, a way back."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersion

from flows.promotions import read_history
from infra.promotion_history import PromotionHistory
from infra.registered_models import ARTIFACT_TAG, registered_version
from infra.registry import MlflowRegistry
from infra.registry_restore import REBUILD_TAG
from pvar.errors import LostRaceError, ModelError, PromotionError, TrackingError
from pvar.ports import RegisteredVersion, Store
from tests.services.registry import MODEL, RegistryNeighbours, empty_database

pytestmark = pytest.mark.slow  # MLflow sets up its database


@pytest.fixture
def neighbours(tmp_path: Path, file_store: Store) -> RegistryNeighbours:
    return RegistryNeighbours(tmp_path, file_store)


def test_a_version_that_is_not_ours_has_one_digest_for_every_backend() -> None:
    # A database answers with numbers, MLflow's server with texts and no run as "".
    answers = [
        ModelVersion(MODEL, version, created, source="s3://b/m", run_id=run)
        for version, created, run in ((1, 1700000000000, None), ("1", "1700000000000", ""))
    ]
    first, second = (registered_version(each).digest for each in answers)
    assert first == second
    assert first.startswith("mlflow-")
    other = ModelVersion(MODEL, 1, 1700000000001, source="s3://b/m", run_id=None)
    assert registered_version(other).digest != first


def promote_all(registry: MlflowRegistry, versions: list[RegisteredVersion]) -> None:
    champion = None
    for version in versions:
        registry.promote(version, instead_of=champion, reason="better")
        champion = version


def test_the_first_promotion_makes_a_champion(neighbours: RegistryNeighbours) -> None:
    registry = neighbours.registry()
    assert registry.champion(MODEL) is None
    (first,) = neighbours.versions(1)
    registry.promote(first, instead_of=None, reason="gate passed", by="pipeline")
    assert registry.champion(MODEL) == first
    assert neighbours.alias("champion") == 1
    (move,) = registry.history(MODEL)
    assert (move.from_version, move.to_version, move.by, move.reason) == (
        *(None, 1),
        *("pipeline", "gate passed"),
    )


def test_who_moved_it_is_the_user_or_the_named_actor(
    neighbours: RegistryNeighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = neighbours.versions(2)
    registry = neighbours.registry()
    monkeypatch.delenv("PVAR_ACTOR", raising=False)
    registry.promote(first, instead_of=None, reason="")
    monkeypatch.setenv("PVAR_ACTOR", "release-train")
    registry.promote(second, instead_of=first, reason="")
    by_user, by_actor = [move.by for move in registry.history(MODEL)]
    assert "@" in by_user
    assert by_actor == "release-train"


def test_an_artifact_is_registered_once(neighbours: RegistryNeighbours) -> None:
    first = neighbours.register("train/aa")
    again = neighbours.register("train/aa")
    other = neighbours.register("train/bb")
    assert (first.version, again.version, other.version) == (1, 1, 2)


def test_a_registered_model_comes_back_whole(
    neighbours: RegistryNeighbours, tmp_path: Path
) -> None:
    neighbours.register("train/aa")
    target = tmp_path / "back"
    target.mkdir()
    neighbours.registry().download(f"models:/{MODEL}/1", target)
    assert (target / "config.json").read_text() == '{"made_from": "train/aa"}'


def test_a_promotion_over_another_champion_than_it_saw_is_refused(
    neighbours: RegistryNeighbours,
) -> None:
    first, second, third = neighbours.versions(3)
    registry = neighbours.registry()
    promote_all(registry, [first, second])
    with pytest.raises(LostRaceError, match="champion is now version 2, no longer version 1"):
        registry.promote(third, instead_of=first, reason="better than 1")
    assert neighbours.alias("champion") == 2
    assert neighbours.moves() == [("promotion", None, 1), ("promotion", 1, 2)]


def test_of_promotions_at_the_same_moment_one_wins(neighbours: RegistryNeighbours) -> None:
    first, *rivals = neighbours.versions(5)
    neighbours.registry().promote(first, instead_of=None, reason="first")
    start = Barrier(len(rivals))

    def compete(rival: RegisteredVersion) -> bool:
        registry = neighbours.registry()
        assert registry.champion(MODEL) == first
        start.wait()
        try:
            registry.promote(rival, instead_of=first, reason="better")
        except LostRaceError:
            return False
        return True

    with ThreadPoolExecutor(len(rivals)) as pool:
        won = list(pool.map(compete, rivals))
    assert sum(won) == 1
    winner = rivals[won.index(True)]
    assert neighbours.alias("champion") == winner.version
    assert neighbours.alias("previous") == 1
    assert neighbours.moves() == [("promotion", None, 1), ("promotion", 1, winner.version)]


class Suspended:
    """The store of a process that is suspended right after it put a certain object."""

    def __init__(self, store: Store, key: str, meanwhile: Callable[[], None]) -> None:
        self._store = store
        self._key = key
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create(self, key: str, data: bytes) -> bool:
        is_first = self._store.create(key, data)
        if key == self._key:
            self._meanwhile()
        return is_first


def test_a_process_that_comes_back_late_does_not_undo_what_others_did(
    neighbours: RegistryNeighbours,
) -> None:
    first, second, third = neighbours.versions(3)
    others = neighbours.registry()
    others.promote(first, instead_of=None, reason="first")

    def meanwhile() -> None:  # somebody finishes the move, and the next one follows
        assert others.champion(MODEL) == second
        others.promote(third, instead_of=second, reason="better still")

    late_store: Store = Suspended(neighbours.store, f"registry/{MODEL}/000002.json", meanwhile)
    late = MlflowRegistry(neighbours.tracking(), late_store)
    late.promote(second, instead_of=first, reason="better")
    assert (neighbours.alias("champion"), neighbours.alias("previous")) == (3, 2)
    assert others.champion(MODEL) == third
    assert neighbours.moves() == [
        ("promotion", None, 1),
        ("promotion", 1, 2),
        ("promotion", 2, 3),
    ]


def kill_after_the_entry(neighbours: RegistryNeighbours, version: RegisteredVersion) -> None:
    """What a promotion leaves that is killed before the alias moves."""
    history = PromotionHistory(neighbours.store, MODEL)
    entry = history.append(
        history.newest(), "promotion", version.version, by="killed", reason="better"
    )
    assert entry is not None


@pytest.mark.parametrize(
    "look",
    [
        lambda registry, _: registry.champion(MODEL),
        lambda registry, _: registry.history(MODEL),
        lambda registry, versions: registry.promote(
            versions[1], instead_of=versions[0], reason="again"
        ),
    ],
)
def test_whoever_looks_finishes_a_move_that_was_killed_half_way(
    neighbours: RegistryNeighbours,
    look: Callable[[MlflowRegistry, list[RegisteredVersion]], object],
) -> None:
    versions = neighbours.versions(2)
    registry = neighbours.registry()
    registry.promote(versions[0], instead_of=None, reason="first")
    kill_after_the_entry(neighbours, versions[1])
    assert neighbours.alias("champion") == 1
    look(registry, versions)
    assert neighbours.alias("champion") == 2
    assert neighbours.alias("previous") == 1
    assert neighbours.moves() == [("promotion", None, 1), ("promotion", 1, 2)]


def test_an_unfinished_promotion_beats_the_next_one(neighbours: RegistryNeighbours) -> None:
    first, second, third = neighbours.versions(3)
    registry = neighbours.registry()
    registry.promote(first, instead_of=None, reason="first")
    kill_after_the_entry(neighbours, second)
    with pytest.raises(LostRaceError, match="champion is now version 2, no longer version 1"):
        registry.promote(third, instead_of=first, reason="better than 1")
    assert neighbours.alias("champion") == 2


def test_an_alias_moved_back_by_hand_is_not_taken_for_an_unfinished_move(
    neighbours: RegistryNeighbours,
) -> None:
    # The same alias as after a kill (entry 1 → 2, alias at 1): only the marker tells them apart.
    first, second = neighbours.versions(2)
    registry = neighbours.registry()
    promote_all(registry, [first, second])
    neighbours.click("champion", 1)
    assert registry.champion(MODEL) == first
    assert neighbours.alias("champion") == 1
    assert neighbours.moves()[2:] == [("by_hand", 2, 1)]
    registry.promote(second, instead_of=first, reason="after all")
    assert neighbours.moves()[3:] == [("promotion", 1, 2)]


def test_a_move_by_hand_is_recorded_when_it_is_noticed_and_once(
    neighbours: RegistryNeighbours,
) -> None:
    versions = neighbours.versions(3)
    registry = neighbours.registry()
    promote_all(registry, versions[:2])
    neighbours.click("champion", 3)
    assert registry.champion(MODEL) == versions[2]
    registry.champion(MODEL)
    assert [move.reason for move in registry.history(MODEL)][2:] == ["found moved outside pvar"]
    assert neighbours.moves()[2:] == [("by_hand", 2, 3)]
    assert neighbours.alias("previous") == 2


def test_an_alias_taken_away_by_hand_is_recorded_and_can_be_brought_back(
    neighbours: RegistryNeighbours,
) -> None:
    registry = neighbours.registry()
    promote_all(registry, neighbours.versions(2))
    neighbours.click("champion", None)
    assert registry.champion(MODEL) is None
    assert neighbours.moves()[2:] == [("by_hand", 2, None)]
    registry.roll_back(MODEL, reason="who did that?")
    assert neighbours.alias("champion") == 2


def test_an_alias_from_before_the_history_is_taken_over(neighbours: RegistryNeighbours) -> None:
    first, second = neighbours.versions(2)
    neighbours.click("champion", 1)
    neighbours.registry().promote(second, instead_of=first, reason="better")
    assert neighbours.moves() == [("by_hand", None, 1), ("promotion", 1, 2)]


def test_rollback_goes_back_one_champion_at_a_time(neighbours: RegistryNeighbours) -> None:
    registry = neighbours.registry()
    promote_all(registry, neighbours.versions(3))
    move = registry.roll_back(MODEL, reason="rude answers", by="ana@laptop")
    assert (move.kind, move.from_version, move.to_version) == ("rollback", 3, 2)
    assert (move.by, move.reason) == ("ana@laptop", "rude answers")
    assert (neighbours.alias("champion"), neighbours.alias("previous")) == (2, 1)
    registry.roll_back(MODEL, reason="still")
    assert (neighbours.alias("champion"), neighbours.alias("previous")) == (1, None)
    with pytest.raises(PromotionError, match="had no champion before version 1; give a version"):
        registry.roll_back(MODEL, reason="still")


def test_rollback_to_a_named_version(neighbours: RegistryNeighbours) -> None:
    registry = neighbours.registry()
    promote_all(registry, neighbours.versions(3))
    registry.roll_back(MODEL, 1, reason="the one of spring")
    assert neighbours.alias("champion") == 1
    with pytest.raises(PromotionError, match="version 1 is already the champion"):
        registry.roll_back(MODEL, 1, reason="again")
    with pytest.raises(ModelError, match=f"MLflow has no models:/{MODEL}/9"):
        registry.roll_back(MODEL, 9, reason="a slip")
    assert neighbours.moves()[3:] == [("rollback", 3, 1)]


def test_a_champion_whose_version_was_deleted_leaves_a_way_back(
    neighbours: RegistryNeighbours,
) -> None:
    registry = neighbours.registry()
    promote_all(registry, neighbours.versions(2))
    neighbours.tracking().client.delete_model_version(MODEL, "2")
    assert registry.champion(MODEL) is None
    registry.roll_back(MODEL, 1, reason="2 is gone")
    assert neighbours.alias("champion") == 1


def test_an_unfinished_move_to_a_deleted_version_blocks_nobody(
    neighbours: RegistryNeighbours,
) -> None:
    first, second, third = neighbours.versions(3)
    registry = neighbours.registry()
    registry.promote(first, instead_of=None, reason="first")
    kill_after_the_entry(neighbours, second)
    neighbours.tracking().client.delete_model_version(MODEL, "2")
    assert registry.champion(MODEL) == first
    registry.promote(third, instead_of=first, reason="better")
    assert neighbours.alias("champion") == 3


def test_versions_tell_what_they_were_registered_with(neighbours: RegistryNeighbours) -> None:
    neighbours.register("train/aa", win_rate="0.6000")
    neighbours.register("train/bb")
    facts = neighbours.registry().versions()
    assert [each.version.version for each in facts] == [1, 2]
    assert facts[0].tags["pvar.win_rate"] == "0.6000"
    assert neighbours.registry().versions("another") == []


def test_a_database_that_breaks_is_told_as_such(neighbours: RegistryNeighbours) -> None:
    registry, another = neighbours.registry(), neighbours.registry()
    assert registry.model(MODEL) is None
    assert another.champion(MODEL) is None
    (neighbours.folder / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(TrackingError, match=r"mlflow.db cannot be completed.*; restore it from"):
        another.champion(MODEL)
    for ask in (registry.champion, registry.history, registry.versions):
        with pytest.raises(TrackingError, match=r"cannot be used: .*; check PVAR_MLFLOW_TRACKING"):
            ask(MODEL)


@pytest.mark.parametrize("name", ["o'brien", 'the "best"', """o'brien's "best\""""])
def test_a_name_with_quotes_is_not_there(neighbours: RegistryNeighbours, name: str) -> None:
    """MLflow makes no such model; what is wrong is the name, not the address of MLflow."""
    neighbours.register("train/aa")
    assert neighbours.registry().versions(name) == []
    with pytest.raises(ModelError, match="has no model"):
        neighbours.registry().resolve(f"models:/{name}/7")


@pytest.mark.parametrize("reference", ["models:/m", "models:/m/x", "m/3", "models:/m@a/b"])
def test_what_names_no_version_is_refused(neighbours: RegistryNeighbours, reference: str) -> None:
    with pytest.raises(ModelError, match="is not a reference to a registered model"):
        neighbours.registry().resolve(reference)


def lose(neighbours: RegistryNeighbours) -> None:
    """MLflow's database is gone; the store stays."""
    shutil.copy(empty_database(), neighbours.folder / "mlflow.db")


def restore(neighbours: RegistryNeighbours, number: int, artifact: str, **tags: str) -> bool:
    model = neighbours.folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(f'{{"made_from": "{artifact}"}}')
    version = RegisteredVersion(MODEL, number, artifact)
    return neighbours.registry().restore(version, model, tags)


def test_a_history_without_its_model_is_not_taken_for_a_move_by_hand(
    neighbours: RegistryNeighbours,
) -> None:
    promote_all(neighbours.registry(), neighbours.versions(2))
    lose(neighbours)
    for look in (neighbours.registry().champion, neighbours.registry().history):
        with pytest.raises(ModelError, match=rf"store has a history of it.*rebuild {MODEL} makes"):
            look(MODEL)
    with pytest.raises(ModelError, match=r"delete file://.*/registry/assistant$"):
        neighbours.registry().roll_back(MODEL, reason="?")
    assert neighbours.moves() == [("promotion", None, 1), ("promotion", 1, 2)]


def test_versions_come_back_under_their_numbers_and_the_aliases_by_the_history(
    neighbours: RegistryNeighbours, tmp_path: Path
) -> None:
    promote_all(neighbours.registry(), neighbours.versions(4))
    neighbours.registry().roll_back(MODEL, 2, reason="rude")
    lose(neighbours)
    # Of versions 1 and 3 nothing is known.
    assert restore(neighbours, 2, "train/0000000000000002", colour="blue")
    assert restore(neighbours, 4, "train/0000000000000004")
    assert neighbours.registry().restore_aliases(MODEL) == 2
    facts = neighbours.registry().versions(MODEL)
    assert [each.version.version for each in facts] == [2, 4]
    assert facts[0].version.artifact == "train/0000000000000002"
    assert facts[0].tags["colour"] == "blue"
    # The champion before it was version 1, which did not come back.
    assert (neighbours.alias("champion"), neighbours.alias("previous")) == (2, None)
    target = tmp_path / "back"
    target.mkdir()
    neighbours.registry().download(f"models:/{MODEL}/2", target)
    assert "0000000002" in (target / "config.json").read_text()
    assert not restore(neighbours, 4, "train/0000000000000004")
    assert neighbours.register("train/cc").version == 5
    assert len(neighbours.moves()) == 5


def test_the_champion_outlives_a_rebuild_that_is_stopped(neighbours: RegistryNeighbours) -> None:
    promote_all(neighbours.registry(), neighbours.versions(3))
    before = neighbours.moves()
    lose(neighbours)
    with pytest.raises(ModelError, match=f"rebuild {MODEL} makes it again"):
        neighbours.register("train/cc")  # it would get the number of a version in the history
    assert restore(neighbours, 1, "train/0000000000000001")
    for look in (neighbours.registry().champion, neighbours.registry().history):
        with pytest.raises(ModelError, match=rf"only a part of .*rebuild {MODEL} makes it again"):
            look(MODEL)
    with pytest.raises(ModelError, match="only a part of"):
        neighbours.register("train/cc")
    assert restore(neighbours, 3, "train/0000000000000003")
    champion = neighbours.registry().champion(MODEL)  # before the aliases are set
    assert champion is not None
    assert champion.version == 3
    assert neighbours.moves() == before
    assert neighbours.registry().restore_aliases(MODEL) == 3
    assert neighbours.register("train/cc").version == 4


def test_after_a_rebuild_a_deleted_version_is_a_move_by_hand_again(
    neighbours: RegistryNeighbours,
) -> None:
    promote_all(neighbours.registry(), neighbours.versions(2))
    lose(neighbours)
    for number in (1, 2):
        restore(neighbours, number, f"train/{number:016x}")
    neighbours.registry().restore_aliases(MODEL)
    neighbours.tracking().client.delete_model_version(MODEL, "2")
    assert neighbours.registry().champion(MODEL) is None
    assert neighbours.moves()[2:] == [("by_hand", 2, None)]


def test_a_number_that_a_killed_rebuild_did_not_delete_is_deleted(
    neighbours: RegistryNeighbours,
) -> None:
    promote_all(neighbours.registry(), neighbours.versions(3))
    lose(neighbours)
    client = neighbours.tracking().client
    client.create_registered_model(MODEL, {REBUILD_TAG: "not complete"})
    artifact = "train/0000000000000003"
    client.create_model_version(MODEL, "somewhere", tags={ARTIFACT_TAG: artifact})  # number 1
    assert restore(neighbours, 3, artifact)
    assert [facts.version.version for facts in neighbours.registry().versions(MODEL)] == [3]


def test_a_version_that_is_compared_again_keeps_no_tag_of_the_comparison_before(
    neighbours: RegistryNeighbours,
) -> None:
    first = neighbours.register("train/aa", gate="failed", gate_reasons="win_rate_lower is 0.4")
    client = neighbours.tracking().client
    client.set_model_version_tag(MODEL, str(first.version), "colour", "blue")
    neighbours.register("train/aa", gate="passed")
    (facts,) = neighbours.registry().versions(MODEL)
    assert facts.tags == {"pvar.artifact": "train/aa", "pvar.gate": "passed", "colour": "blue"}


def test_files_that_a_killed_upload_left_out_are_uploaded(neighbours: RegistryNeighbours) -> None:
    artifact = "train/0000000000000001"
    weights = neighbours.folder / "model" / "weights" / "a.bin"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    neighbours.versions(1)
    (stored,) = [info for info in neighbours.store.list("mlflow/") if "a.bin" in info.key]
    neighbours.store.delete(stored.key)
    assert restore(neighbours, 1, artifact)
    assert neighbours.store.read(stored.key) == b"weights"
    neighbours.store.write(stored.key, b"weig")
    assert restore(neighbours, 1, artifact)
    assert neighbours.store.read(stored.key) == b"weights"
    assert not restore(neighbours, 1, artifact)


def test_a_description_of_which_a_killed_upload_left_out_files_is_completed(
    neighbours: RegistryNeighbours,
) -> None:
    artifact, model = "train/0000000000000001", neighbours.folder / "model"
    neighbours.versions(1)
    version = RegisteredVersion(MODEL, 1, artifact)
    (model / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (model / "tokenizer.json").write_text("{}")
    assert neighbours.registry().restore(version, model, {})  # of a version registered before
    there = {info.key for info in neighbours.store.list("mlflow/")}
    (tokenizer,) = (key for key in there if key.endswith("components/tokenizer/tokenizer.json"))
    neighbours.store.delete(tokenizer)
    assert neighbours.registry().restore(version, model, {})
    assert {info.key for info in neighbours.store.list("mlflow/")} == there
    assert not neighbours.registry().restore(version, model, {})


def test_what_is_another_registrys_is_not_overwritten(neighbours: RegistryNeighbours) -> None:
    neighbours.versions(3)
    with pytest.raises(ModelError, match="version 2 is of train/0000000000000002 in MLflow and of"):
        restore(neighbours, 2, "train/other")
    neighbours.tracking().client.delete_model_version(MODEL, "2")
    with pytest.raises(ModelError, match="MLflow gives number 4 to version 2"):
        restore(neighbours, 2, "train/0000000000000002")
    assert [each.version.version for each in neighbours.registry().versions(MODEL)] == [1, 3]


def test_a_version_whose_files_are_gone_is_no_champion_until_they_are_back(
    neighbours: RegistryNeighbours,
) -> None:
    first, second = neighbours.versions(2)
    registry = neighbours.registry()
    promote_all(registry, [first])
    for info in list(neighbours.store.list("mlflow/")):
        neighbours.store.delete(info.key)
    assert not registry.has_files(second)
    for refused in (
        lambda: registry.promote(second, instead_of=first, reason="better"),
        lambda: registry.roll_back(MODEL, 2, reason="better"),
    ):
        with pytest.raises(PromotionError, match="version 2 cannot be made champion: its files"):
            refused()
    assert neighbours.alias("champion") == 1
    shown = read_history(registry, MODEL)
    assert [each.has_files for each in shown] == [False]
    assert restore(neighbours, 2, second.artifact or "")
    registry.promote(second, instead_of=first, reason="better")
    assert [each.has_files for each in read_history(registry, MODEL)] == [False, True]
