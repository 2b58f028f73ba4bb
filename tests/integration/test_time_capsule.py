"""What earlier versions left behind (tests/capsule/) is opened, reused, rolled back and pruned."""

import re
import shutil
import tarfile
from pathlib import Path

import pytest

from flows.promotions import read_history
from flows.registry_rebuild import rebuild_registry
from flows.wiring import connect
from infra.registry import VersionFacts
from pvar.errors import ModelError
from tests.capsule.make import PLACE, environment, pvar, relocate
from tests.services.prefect_server import running
from tests.services.registry import empty_database

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
]

CAPSULES = sorted((Path(__file__).parents[1] / "capsule").glob("*.tar.xz"))
REUSED = re.compile(r"(\d+) of \1 artifacts reused")
IDS = [path.name.removesuffix(".tar.xz") for path in CAPSULES]


def unpack(capsule: Path, folder: Path) -> Path:
    with tarfile.open(capsule) as archive:
        archive.extractall(folder, filter="data")
    relocate(folder, PLACE, str(folder))
    return folder


def test_there_is_a_capsule() -> None:
    assert CAPSULES


@pytest.mark.parametrize("capsule", CAPSULES, ids=IDS)
def test_commands_open_what_an_earlier_version_made(capsule: Path, tmp_path: Path) -> None:
    folder = unpack(capsule, tmp_path)
    shown = pvar(folder, "show", "--preset", "second.yaml")
    assert shown.count(" complete") == 10
    pvar(folder, "report", "latest", "--out", str(folder / "report.html"))
    assert "The selection" in (folder / "report.html").read_text()
    history = pvar(folder, "history", "capsule")
    assert "for the capsule" in history
    lineage = pvar(folder, "lineage", "models:/capsule/2")
    for stage in ("ingest", "sample", "score", "select", "pair", "train"):
        assert f"{stage}/" in lineage
    # The second run made the champion: all of it is reused, and what a run names is kept.
    num_artifacts = len(list((folder / "home/store").rglob("manifest.json")))
    assert REUSED.search(pvar(folder, "run", "--preset", "second.yaml"))
    pvar(folder, "gc", "--delete")
    assert len(list((folder / "home/store").rglob("manifest.json"))) == num_artifacts

    # MLflow's copies of the models are not in the capsule.
    assert "versions 1, 2 made again" in pvar(folder, "registry", "rebuild", "capsule")
    assert "champion is version 1, it was version 2" in pvar(
        folder, "rollback", "capsule", "--reason", "as a test"
    )
    assert REUSED.search(pvar(folder, "run", "--preset", "first.yaml"))


@pytest.mark.parametrize("capsule", CAPSULES, ids=IDS)
def test_a_lost_registry_is_made_again_from_the_store(
    capsule: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what versions before this command registered."""
    folder = unpack(capsule, tmp_path)
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    before = connect()
    versions = digests_of(before.registry.versions())
    history = read_history(before.registry, "capsule")
    assert len(versions) == 2
    shutil.rmtree(folder / "home/store/mlflow")
    shutil.copy(empty_database(), folder / "home/mlflow.db")

    lost = connect()
    with pytest.raises(ModelError, match=r"has no model 'capsule'.* rebuild capsule makes"):
        lost.registry.champion("capsule")
    (rebuilt,) = rebuild_registry(lost)
    assert (rebuilt.made, rebuilt.kept, rebuilt.gone) == ((1, 2), (), ())
    again = connect()
    assert digests_of(again.registry.versions()) == versions
    # The capsule was packed without MLflow's copies of the models.
    assert read_history(again.registry, "capsule") == [
        each._replace(has_files=True) for each in history
    ]
    (repeated,) = rebuild_registry(again, "capsule")
    assert (repeated.made, repeated.kept) == ((), (1, 2))
    copy = folder / "copy"
    copy.mkdir()
    again.registry.download("models:/capsule@champion", copy)
    assert (copy / "model.safetensors").is_file()


def digests_of(versions: list[VersionFacts]) -> list[tuple[object, ...]]:
    """All facts without locations: a stored recipe has the digest of a reference only."""
    return [
        (
            *version._replace(opponent=(version.opponent or "").rpartition("#")[2]),
            {name: value.rpartition("#")[2] for name, value in tags.items()},
        )
        for version, tags in versions
    ]


@pytest.mark.parametrize("capsule", CAPSULES, ids=IDS)
def test_prefects_database_of_an_earlier_version_names_flows_that_are_there(
    capsule: Path, tmp_path: Path
) -> None:
    from prefect import get_client
    from prefect.flows import load_flow_from_entrypoint

    folder = unpack(capsule, tmp_path)
    with (
        running(folder / "prefect") as server,
        server.is_ours(),
        get_client(sync_client=True) as client,
    ):
        deployments = client.read_deployments()
        assert {"pipeline", "retrain", "process"} <= {each.name for each in deployments}
        for deployment in deployments:
            assert deployment.entrypoint is not None
            flow = load_flow_from_entrypoint(deployment.entrypoint)
            parameters = flow.validate_parameters(deployment.parameters)
            assert deployment.parameters.keys() <= parameters.keys()
        assert len(client.read_flow_runs()) > 2
