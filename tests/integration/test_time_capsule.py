"""What earlier versions left behind (tests/capsule/) is opened, reused, rolled back and pruned."""

import re
import tarfile
from pathlib import Path

import pytest

from tests.capsule.make import PLACE, pvar, relocate
from tests.services.prefect_server import running

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

    assert "champion is version 1, it was version 2" in pvar(
        folder, "rollback", "capsule", "--reason", "as a test"
    )
    assert REUSED.search(pvar(folder, "run", "--preset", "first.yaml"))


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
