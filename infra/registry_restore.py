"""Register versions again, with numbers and files, after MLflow's database was lost."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.registered_models import RegisteredModels
from infra.transformers_flavor import write_flavor
from pvar.errors import ModelError
from pvar.ports import RegisteredVersion, Store

REBUILD_TAG = "pvar.rebuild"
"""Tag of a registered model from the start of its rebuild to the end, so that a missing version is
not taken for one that a person deleted."""


def restore_version(
    models: RegisteredModels,
    store: Store,
    version: RegisteredVersion,
    folder: Path,
    tags: Mapping[str, str],
) -> bool:
    """Register a version again under its number, with its files; False if it is all there.

    Numbers below it that MLflow would give first are used up. ModelError if MLflow has another
    model under this number, or gives only higher ones.
    """
    name, number, artifact = version.model_name, version.version, version.artifact
    models.ensure_model(name, {REBUILD_TAG: "not complete"})
    there = {facts.version.version: facts.version for facts in models.versions(name)}
    if (found := there.get(number)) is None:
        _delete_leftovers(models, version, list(there.values()))
        _make(models, version, folder, tags)
        return True
    if found.artifact != artifact:
        raise ModelError(
            f"{name} version {number} is of {found.artifact or 'another origin'} in MLflow "
            f"and of {artifact} in the store, so they are of different registries; give "
            "PVAR_MLFLOW_TRACKING_URI and PVAR_STORE_URI of one and the same"
        )
    return _restore_files(models, store, found, folder)


def _delete_leftovers(
    models: RegisteredModels, version: RegisteredVersion, there: Sequence[RegisteredVersion]
) -> None:
    """Delete lower numbers that a killed rebuild gave to this version and did not delete."""
    model = models.model(version.model_name)
    if model is None or REBUILD_TAG not in model.tags:
        return
    for other in there:
        if other.artifact == version.artifact and other.version < version.version:
            models.delete_version(other.model_name, other.version)


def _make(
    models: RegisteredModels, version: RegisteredVersion, folder: Path, tags: Mapping[str, str]
) -> None:
    name, number = version.model_name, version.version
    files = models.store_files(name, folder, tags)
    given = 0
    while given < number:
        given = models.add_version(name, files, version.artifact or "", tags)
        if given != number:
            models.delete_version(name, given)
    if given > number:
        raise ModelError(
            f"{name}: MLflow gives number {given} to version {number}, because it had versions "
            "up to there before; rebuild in an empty registry"
        )


def _restore_files(
    models: RegisteredModels, store: Store, version: RegisteredVersion, folder: Path
) -> bool:
    """Upload the files that are not in the store with their size; False if all are.

    With them, the files of MLflow's own description of the folder that are not there.
    """
    prefix = models.files_of(version)
    if prefix is None:
        return False
    there = {info.key: info.num_bytes for info in store.list(prefix)}
    files = _files_below(folder, prefix)
    missing = {key: path for key, path in files.items() if there.get(key) != path.stat().st_size}
    with tempfile.TemporaryDirectory() as beside:
        if write_flavor(folder, Path(beside)):
            described = _files_below(Path(beside), prefix)
            missing |= {key: path for key, path in described.items() if key not in there}
        for key, path in missing.items():
            store.upload(path, key)
    return bool(missing)


def _files_below(folder: Path, prefix: str) -> dict[str, Path]:
    """Key in the store → file of the folder."""
    return {
        f"{prefix}{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
