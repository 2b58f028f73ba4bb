"""A disk that is full or read-only: one message, and nothing that was complete is lost."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.execution import execute
from flows.pinning import pin
from flows.wiring import Wiring, connect
from infra.settings import Settings
from pvar.config import PipelineConfig
from pvar.errors import StoreError
from tasks.engine.artifact import open_artifact
from tasks.graph import plan_nodes
from tests.workflow import fake_settings, write_prompts

pytestmark = [
    pytest.mark.slow,  # MLflow sets up its database
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes the rights of root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def wire(tmp_path: Path, *, home: Path, store: Path) -> tuple[PipelineConfig, Wiring]:
    wiring = connect(
        Settings(
            home=home,
            store_uri=str(store),
            mlflow_tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        )
    )
    source = write_prompts(tmp_path / "prompts.jsonl")
    return pin(PipelineConfig.model_validate(fake_settings(source)), wiring), wiring


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096) == 4096:
            pass
    assert shutil.disk_usage(disk).free == 0
    return ballast


def test_a_full_store_is_told_and_goes_on_when_there_is_space(
    tmp_path: Path, small_disk: Path
) -> None:
    config, wiring = wire(tmp_path, home=tmp_path / "home", store=small_disk / "store")
    execute(config, "ingest", wiring)
    ballast = fill(small_disk)
    with pytest.raises(StoreError, match=r"No space left.*free some space or move the store"):
        execute(config, "sample", wiring)
    keys = plan_nodes(config)["ingest"].keys
    assert open_artifact(wiring.store, keys.stage, keys.digest, tmp_path / "read").manifest
    ballast.unlink()
    assert execute(config, "ingest", wiring).reused
    assert execute(config, "sample", wiring).artifact.manifest.row_counts.rows_out == 84


def test_a_full_working_folder_is_told_and_goes_on_when_there_is_space(
    tmp_path: Path, small_disk: Path
) -> None:
    config, wiring = wire(tmp_path, home=small_disk / "home", store=tmp_path / "store")
    execute(config, "ingest", wiring)
    ballast = fill(small_disk)
    with pytest.raises(StoreError, match=r"No space left"):
        execute(config, "sample", wiring)
    ballast.unlink()
    assert execute(config, "sample", wiring).artifact.manifest.row_counts.rows_out == 84


@pytest.mark.parametrize("which", ["home", "store"])
def test_a_read_only_folder_is_told(tmp_path: Path, small_disk: Path, which: str) -> None:
    folders = {"home": tmp_path / "home", "store": tmp_path / "store"} | {which: small_disk / which}
    config, wiring = wire(tmp_path, **folders)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match=r"Read-only file system; make .* writable or move the"):
        execute(config, "ingest", wiring)
