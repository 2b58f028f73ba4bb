"""The folder of a backtest: `{home}/backtests/{history}/`.

    history/…                    the historical files, with their simulated times
    POLICY-{digest}/             a policy's home: PVAR_HOME, store and MLflow of its process
    POLICY-{digest}/policy.json  what is replayed
    POLICY-{digest}/position.json   how far the clock is
    POLICY-{digest}/result.json  its batches so far
    backtest.json, backtest.html the result of the last command on these files

The folders are named by what their results depend on, so the same command goes on where it was
stopped, and a further policy leaves the others as they are. Nothing outside of it is changed.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from flows.pinning import pin_reference
from flows.retrain_batch import with_source
from flows.wiring import Wiring
from infra.preconditions import inline_stages, refuse_missing
from infra.settings import Settings
from infra.store import open_store
from infra.store.file_store import FileStore
from pvar.backtest_config import (
    BacktestConfig,
    HistoryFile,
    PolicyPlan,
    TimeSource,
    arrival_times,
    plan_policy,
)
from pvar.backtest_result import BacktestedPolicy
from pvar.digest import digest
from pvar.errors import ConfigError, InputError
from pvar.placement import PlacementConfig
from pvar.ports import ObjectInfo, Store
from pvar.references import Reference, replace_references
from pvar.retrain_decision import RetrainConfig
from tasks.engine.artifact import sha256_of
from tasks.engine.work_folders import work_folder
from tasks.retraining.withdrawals import WITHDRAWN, withdrawn_ids

BACKTESTS = "backtests"
HISTORY = "history"
_PLAN, _POSITION, _RESULT = "policy.json", "position.json", "result.json"
_PARTIAL = ".partial"

_Document = TypeVar("_Document", bound=BaseModel)


class Position(BaseModel):
    """How far a policy is replayed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_looks_done: int = 0
    waiting: tuple[str, ...] = ()
    """What the last look said about batches that wait for a person."""


class History(BaseModel):
    """The historical files, in a local folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    """Folder of the backtest."""
    files: tuple[HistoryFile, ...]
    time_source: TimeSource


def open_history(config: BacktestConfig, settings: Settings) -> History:
    """Copy the historical files into the folder of the backtest, unless they are there.

    Raises InputError if there are none.
    """
    source = _open_source(config.batches)
    listed = [info for info in source.list("") if _is_data(info)]
    if not listed:
        raise InputError(
            f"{config.batches} has no files; give a folder or s3://bucket/prefix of files with "
            "preferences or prompts"
        )
    times, time_source = arrival_times([(info.key, info.modified) for info in listed])
    home = settings.home.absolute()
    with work_folder(home, "backtest") as scratch:
        copies = scratch / HISTORY
        files = []
        for info, arrives_at in zip(listed, times, strict=True):
            copy = copies / info.key
            source.download(info.key, copy)
            os.utime(copy, (arrives_at.timestamp(), arrives_at.timestamp()))
            files.append(HistoryFile(key=info.key, sha256=sha256_of(copy), arrives_at=arrives_at))
        name = digest([file.model_dump(mode="json") for file in files])
        root = home / BACKTESTS / name
        root.mkdir(parents=True, exist_ok=True)
        if not (root / HISTORY).exists():
            copies.rename(root / HISTORY)
    return History(root=root, files=tuple(files), time_source=time_source)


def _open_source(address: str) -> Store:
    """The store of historical files. A folder is only read: nothing in it is tidied up."""
    if address.startswith("s3:"):
        return open_store(address)
    return FileStore(Path(address.removeprefix("file://")).expanduser().absolute())


def _is_data(info: ObjectInfo) -> bool:
    """Whether a listed object is a file that retraining would read."""
    name = info.key.rpartition("/")[2]
    return bool(name) and not name.startswith(".")


def open_policy(config: BacktestConfig, name: str, history: History, wiring: Wiring) -> Path:
    """The home of a policy, with its plan. Copies of models are shared with this machine's home.

    Raises ConfigError for what a backtest cannot do, and InputError for what is missing here.
    """
    plan = plan_policy(config, name, history.files, withdrawn_ids(wiring.store))
    refuse_outside_work(plan.config, name)
    pipeline = with_source(plan.config.pipeline, "bundled:sentiment")  # batches replace the source
    refuse_missing(pipeline, inline_stages(pipeline))
    plan = plan.model_copy(update={"config": _with_local_models(plan.config, wiring)})
    home = history.root / f"{name}-{plan.identity[:8]}"
    home.mkdir(parents=True, exist_ok=True)
    _write(home / _PLAN, plan)
    own = open_store(policy_environment(home)["PVAR_STORE_URI"])
    for info in wiring.store.list(f"{WITHDRAWN}/"):
        own.create(info.key, wiring.store.read(info.key))
    models = home / "models"
    if not models.is_symlink():
        wiring.models.mkdir(parents=True, exist_ok=True)
        models.symlink_to(wiring.models.absolute(), target_is_directory=True)
    return home


def refuse_outside_work(config: RetrainConfig, name: str) -> None:
    """Raise ConfigError if stages run on pools: their workers have another store."""
    placed = set(PlacementConfig.model_fields) - inline_stages(config.pipeline)
    if placed:
        raise ConfigError(
            f"policy {name}: {', '.join(sorted(placed))} run on work pools, whose workers do not "
            "have the store of a backtest; run all stages in its own process: leave "
            "runtime.placement out"
        )


def _with_local_models(config: RetrainConfig, wiring: Wiring) -> RetrainConfig:
    """The configuration with models of this machine's registry and store as local folders.

    A policy has a registry and a store of its own, in which they are not.
    """

    def located(reference: Reference) -> str:
        text = reference.text
        if reference.kind != "model" or not text.startswith(("models:/", "artifact:")):
            return text
        if "@" in text.partition("#")[0]:
            raise ConfigError(
                f"{reference.path} is {text}: an alias names a model of today, which may have been "
                "trained on these batches; name a version (models:/NAME/1), or `champion`, which "
                "is the champion of the simulated time"
            )
        return str(wiring.model_folder(pin_reference(text, wiring)))

    return config.model_copy(update={"pipeline": replace_references(config.pipeline, located)})


def policy_environment(home: Path) -> dict[str, str]:
    """The environment in which a policy's process has a store and an MLflow of its own."""
    return {
        "PVAR_HOME": str(home),
        "PVAR_STORE_URI": (home / "store").as_uri(),
        "PVAR_MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
    }


def deliver(home: Path, files: Sequence[HistoryFile], incoming: str) -> None:
    """Let files arrive: copies in the policy's incoming folder, with their simulated times.

    A file that is there is left as it is, so that a repeated delivery changes nothing.
    """
    for file in files:
        target = home / "store" / incoming.rstrip("/") / file.key
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / _PARTIAL  # its name begins with a dot: it is not read
        shutil.copy2(home.parent / HISTORY / file.key, partial)
        os.replace(partial, target)


def read_plan(home: Path) -> PolicyPlan:
    """The plan of a policy."""
    return PolicyPlan.model_validate_json((home / _PLAN).read_bytes())


def read_position(home: Path) -> Position:
    """How far a policy is replayed: nowhere, if it has not begun."""
    return _read(home / _POSITION, Position) or Position()


def save_position(home: Path, position: Position) -> None:
    """Record how far a policy is replayed."""
    _write(home / _POSITION, position)


def read_result(home: Path) -> BacktestedPolicy | None:
    """The batches of a policy so far; None if it has none yet."""
    return _read(home / _RESULT, BacktestedPolicy)


def save_result(home: Path, result: BacktestedPolicy) -> None:
    """Record the batches of a policy so far."""
    _write(home / _RESULT, result)


def _read(path: Path, kind: type[_Document]) -> _Document | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None


def _write(path: Path, document: BaseModel) -> None:
    partial = path.with_name(f"{path.name}{_PARTIAL}")
    partial.write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
