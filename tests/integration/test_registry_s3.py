"""The registry with its files and its history in S3, MLflow on a database."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from infra.store import open_store
from pvar.errors import PromotionError
from pvar.ports import RegisteredVersion
from tests.services.registry import MODEL, RegistryNeighbours
from tests.services.s3 import S3Server


@pytest.fixture
def neighbours(
    tmp_path: Path, moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> RegistryNeighbours:
    # MLflow's own S3 client reads the same variables as the store.
    for name, value in moto_s3.environment().items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{moto_s3.new_bucket()}/artifacts", access=moto_s3.access())
    return RegistryNeighbours(tmp_path, store)


def test_a_large_model_goes_to_the_store_in_parts_and_comes_back(
    neighbours: RegistryNeighbours, moto_s3: S3Server, tmp_path: Path
) -> None:
    model, back = tmp_path / "trained", tmp_path / "back"
    model.mkdir()
    back.mkdir()
    weights = random.Random(0).randbytes(20 << 20)
    (model / "model.safetensors").write_bytes(weights)
    (model / "config.json").write_text("{}")
    version = neighbours.registry().register(MODEL, model, "train/aa", {})
    bucket = neighbours.store.uri.removeprefix("s3://").partition("/")[0]
    objects = moto_s3.client().list_objects_v2(Bucket=bucket)["Contents"]
    (stored,) = [item for item in objects if item["Key"].endswith("/model.safetensors")]
    assert stored["Key"].startswith("artifacts/mlflow/")
    assert stored["Size"] == len(weights)
    # The ETag of an object that came in parts ends in their number.
    assert "-" in stored["ETag"]
    neighbours.registry().download(f"models:/{MODEL}/{version.version}", back)
    assert sorted(path.name for path in back.iterdir()) == ["config.json", "model.safetensors"]
    copy = (back / "model.safetensors").read_bytes()
    assert hashlib.sha256(copy).digest() == hashlib.sha256(weights).digest()


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
        except PromotionError:
            return False
        return True

    with ThreadPoolExecutor(len(rivals)) as pool:
        won = list(pool.map(compete, rivals))
    assert sum(won) == 1
    winner = rivals[won.index(True)].version
    assert (neighbours.alias("champion"), neighbours.alias("previous")) == (winner, 1)
    assert neighbours.moves() == [("promotion", None, 1), ("promotion", 1, winner)]


def test_a_move_by_hand_is_noticed_and_rolled_back(neighbours: RegistryNeighbours) -> None:
    first, second = neighbours.versions(2)
    registry = neighbours.registry()
    registry.promote(first, instead_of=None, reason="first")
    neighbours.click("champion", 2)
    assert registry.champion(MODEL) == second
    registry.roll_back(MODEL, reason="nobody had compared it")
    assert neighbours.alias("champion") == 1
    assert neighbours.moves() == [("promotion", None, 1), ("by_hand", 1, 2), ("rollback", 2, 1)]
