"""How large a model is, without loading its weights: from the headers of its safetensors files.

A model that is not on this machine has no size here, but for one of the Hub that has yet to be
downloaded, about which the Hub is asked. Unknown is None, and nothing is concluded from it.
"""

import json
import logging
import math
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from infra.bundled_model import BUNDLED
from infra.models import WANTED_FILES, is_hub_model, is_model_path, kept_copy, local_path
from pvar.errors import ModelError
from pvar.references import Pinned

logger = logging.getLogger(__name__)

HEADER_BYTES = 8
"""A safetensors file begins with the length of its header, a little-endian number."""

HUB_SECONDS = 10


class ModelSize(NamedTuple):
    """The size of a model."""

    num_parameters: int | None
    """None if it is unknown, or if the weights are quantised: then memory is not their number."""
    download_bytes: int = 0
    """What has yet to be downloaded, or converted, to this machine."""


def find_size(reference: str, models: Path, registry_uri: str) -> ModelSize | None:
    """The size of the model of a pinned reference; None if it is unknown.

    `models` is the folder of local copies. Raises ModelError if the reference is a folder that is
    not on this machine.
    """
    location = Pinned.parse(reference).location
    if is_model_path(location):
        folder = local_path(location)
        if not folder.is_dir():
            raise ModelError(f"{folder}: no such folder on this machine; copy the model there")
        return ModelSize(count_parameters(folder))
    kept = kept_copy(reference, models, registry_uri)
    if kept.is_dir():
        return ModelSize(count_parameters(kept))
    scheme, _, rest = location.partition(":")
    if scheme == "bundled" and rest in BUNDLED:
        num = BUNDLED[rest].num_parameters
        return ModelSize(num, 2 * num)
    return _hub_size(location) if is_hub_model(location) else None


def count_parameters(folder: Path) -> int | None:
    """The number of parameters in a Hugging Face folder; None if it is unknown or misleading."""
    try:
        if "quantization_config" in json.loads((folder / "config.json").read_text("utf-8")):
            return None
        counts = [_count_in(path) for path in _weights(folder)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # what is wrong with it is said when it is loaded
    return sum(counts) or None


def hub_cache() -> Path:
    """Folder of the Hub's client for downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _count_in(path: Path) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_BYTES), "little")
        header = json.loads(file.read(min(length, path.stat().st_size)))
    return sum(math.prod(each["shape"]) for name, each in header.items() if name != "__metadata__")


def _hub_size(location: str) -> ModelSize | None:
    """The size of a model of the Hub, from the local cache or else from the Hub itself."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = location.partition("@")
    config = try_to_load_from_cache(repository, "config.json", revision=revision or None)
    if isinstance(config, str) and _is_whole(Path(config).parent):
        return ModelSize(count_parameters(Path(config).parent))
    return _ask_hub(repository, revision or None)


def _is_whole(folder: Path) -> bool:
    """Whether all files of weights are there."""
    return all((folder / name).exists() for name in _named_weights(folder))


def _weights(folder: Path) -> list[Path]:
    """The files that are loaded. Some repositories have the same weights once more, in another form
    (`consolidated.safetensors`)."""
    named = [folder / name for name in _named_weights(folder)]
    return named if all(path.exists() for path in named) else sorted(folder.glob("*.safetensors"))


def _named_weights(folder: Path) -> list[str]:
    """Names of the files of weights, by the index if there is one."""
    index = folder / "model.safetensors.index.json"
    try:
        return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError):
        return ["model.safetensors"]


def _ask_hub(repository: str, revision: str | None) -> ModelSize | None:
    from huggingface_hub import HfApi, try_to_load_from_cache

    ask: Callable[..., Any] = HfApi().model_info
    try:
        info = ask(repository, revision=revision, files_metadata=True, timeout=HUB_SECONDS)
        missing = [
            each.size or 0
            for each in info.siblings or ()
            if any(fnmatch(each.rfilename, pattern) for pattern in WANTED_FILES)
            and not isinstance(
                try_to_load_from_cache(repository, each.rfilename, revision=revision), str
            )
        ]
        is_quantised = "quantization_config" in (info.config or {})
        num = info.safetensors.total if info.safetensors and not is_quantised else None
    except Exception as error:  # noqa: BLE001  the Hub client's errors have no common base
        logger.debug("the size of %s is unknown: %s", repository, type(error).__name__)
        return None
    return ModelSize(num, max(0, sum(missing) - _begun_bytes(repository)))


def _begun_bytes(repository: str) -> int:
    """What is there of interrupted downloads, which go on."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}" / "blobs"
    return sum(path.stat().st_size for path in folder.glob("*.incomplete"))
