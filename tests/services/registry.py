"""MLflow on a database of the test's own, and a store for the history of promotions."""

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from infra.promotion_history import PromotionHistory
from infra.registry import MlflowRegistry
from infra.tracking import Tracking, open_mlflow_client
from pvar.ports import RegisteredVersion, Store

MODEL = "assistant"
"""The registered model of these tests."""


@cache
def empty_database() -> Path:
    """MLflow's tables, made once per test process: that takes many seconds."""
    path = Path(tempfile.mkdtemp(prefix="pvar-mlflow-")) / "empty.db"
    open_mlflow_client(f"sqlite:///{path}").search_experiments()
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):  # else the next process uses it
        os.environ.pop(name, None)
    return path


class RegistryNeighbours:
    """MLflow and a store, as one test sees them; `registry()` is what each process opens."""

    def __init__(self, folder: Path, store: Store) -> None:
        database = folder / "mlflow.db"
        shutil.copy(empty_database(), database)
        self.folder = folder
        self.store = store
        self.address = f"sqlite:///{database}"

    def tracking(self) -> Tracking:
        return Tracking(self.address, self.store.uri)

    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(self.tracking(), self.store)

    def register(self, artifact: str, **tags: str) -> RegisteredVersion:
        """A version made from a small folder of files."""
        model = self.folder / "model"
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text(f'{{"made_from": "{artifact}"}}')
        named = {f"pvar.{name}": value for name, value in tags.items()}
        return self.registry().register(MODEL, model, artifact, named)

    def versions(self, count: int) -> list[RegisteredVersion]:
        """Versions 1 to `count`."""
        return [self.register(f"train/{number:016x}") for number in range(1, count + 1)]

    def alias(self, name: str) -> int | None:
        """What MLflow says, not asked through our registry."""
        found = self.tracking().client.get_registered_model(MODEL).aliases.get(name)
        return None if found is None else int(found)

    def click(self, name: str, version: int | None) -> None:
        """What the MLflow UI does when a person edits an alias."""
        client = self.tracking().client
        if version is None:
            client.delete_registered_model_alias(MODEL, name)
        else:
            client.set_registered_model_alias(MODEL, name, str(version))

    def moves(self) -> list[tuple[str, int | None, int | None]]:
        """The history as it lies in the store: kind, from, to."""
        history = PromotionHistory(self.store, MODEL).moves()
        return [(move.kind, move.from_version, move.to_version) for move in history]

    def environment(self) -> dict[str, str]:
        """Settings with which a command finds all this."""
        return {
            "PVAR_HOME": str(self.folder / "home"),
            "PVAR_STORE_URI": self.store.uri,
            "PVAR_MLFLOW_TRACKING_URI": self.address,
            "PVAR_ACTOR": "ana",
        }
