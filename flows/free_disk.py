"""Whether what a run downloads and writes fits on the disks, by a rough bound.

    models that are not on this machine yet      in the Hub's cache, or in PVAR_HOME
    the trained models, bfloat16                 one in PVAR_HOME, all in a store that is a folder
    checkpoints of training all weights          in both: 12 bytes a parameter, while it trains

Checkpoints are counted for the warning only: a short training makes none. Rows and answers, which
are small, and other users of the disk are not counted.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flows.model_memory import Fit, UsedModel, gigabytes
from infra.model_size import ModelSize, hub_cache
from infra.models import is_hub_model
from infra.settings import Settings
from pvar.references import Pinned

SAVED_BYTES = 2
"""Of a parameter of a trained model, which is saved in bfloat16."""

CHECKPOINT_BYTES = 12
"""Of a parameter, of which all are trained: float32, with AdamW's two moments."""


class _Written(NamedTuple):
    folder: Path
    what: str
    sure: int
    """Bytes that are written in any case."""
    possible: int = 0
    """Bytes that may be written beside them."""


def judge_disk(
    used: Iterable[tuple[str, UsedModel, ModelSize | None]], settings: Settings
) -> list[Fit]:
    """Whether the disks have room for what nodes download and write."""
    written: list[_Written] = []
    trained: list[_Written] = []
    seen: set[str] = set()
    for name, model, size in used:
        if size is None:
            continue
        if size.download_bytes and model.reference not in seen:
            seen.add(model.reference)
            written.append(_download(model.reference, size.download_bytes, settings))
        if size.num_parameters and model.use in ("trained", "base of LoRA"):
            trained.append(_trained(name, model, size.num_parameters, settings.home))
    if trained:
        written += _everywhere(trained, settings)
    by_disk: dict[int, list[_Written]] = {}
    for each in written:
        by_disk.setdefault(os.stat(_existing(each.folder)).st_dev, []).append(each)
    return [_judge_disk(of_one) for of_one in by_disk.values()]


def _download(reference: str, num_bytes: int, settings: Settings) -> _Written:
    location = Pinned.parse(reference).location
    if is_hub_model(location):
        return _Written(hub_cache(), f"downloading {location}", num_bytes)
    return _Written(settings.home / "models", f"a copy of {location}", num_bytes)


def _trained(name: str, model: UsedModel, num_parameters: int, home: Path) -> _Written:
    checkpoint = CHECKPOINT_BYTES * num_parameters if model.use == "trained" else 0
    return _Written(home, f"the model of {name}", SAVED_BYTES * num_parameters, checkpoint)


def _everywhere(trained: list[_Written], settings: Settings) -> list[_Written]:
    """Models are trained one after the other: PVAR_HOME must have room for the largest, with its
    checkpoints, and a store that is a folder for all of them."""
    largest = max(trained, key=lambda each: each.sure + each.possible)
    store = urlsplit(settings.store_uri)
    if store.scheme not in ("", "file"):
        return [largest]
    folder = Path(url2pathname(store.path)).expanduser()
    kept = [each._replace(possible=each.possible if each is largest else 0) for each in trained]
    return [largest, *(each._replace(folder=folder) for each in kept)]


def _judge_disk(written: list[_Written]) -> Fit:
    """Whether one disk has room for all of it."""
    free = shutil.disk_usage(_existing(written[0].folder)).free
    sure = sum(each.sure for each in written)
    possible = sure + sum(each.possible for each in written)
    parts: dict[str, int] = {}
    for each in written:
        parts[each.what] = parts.get(each.what, 0) + each.sure
    said = ", ".join(f"{what} {gigabytes(num_bytes)}" for what, num_bytes in parts.items())
    figures = f"at least {gigabytes(sure)} are written ({said})"
    if possible > sure:
        figures += f", and up to {gigabytes(possible - sure)} of checkpoints"
    verdict = "impossible" if sure > free else "tight" if possible > free else "fits"
    folders = ", ".join(dict.fromkeys(str(each.folder.absolute()) for each in written))
    return Fit(
        verdict,  # type: ignore[arg-type]
        folders,
        f"{figures}, and {gigabytes(free)} are free",
        "free some space, or set PVAR_HOME (models of the Hub: HF_HOME) to another disk",
    )


def _existing(folder: Path) -> Path:
    """The folder, or the first one around it that exists."""
    folder = folder.absolute()
    return next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
