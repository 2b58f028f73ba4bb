"""What earlier versions left behind (tests/capsule/) is opened, reused, rolled back and pruned."""

import re
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

from flows.pinning import pin
from flows.promotions import read_history
from flows.registry_rebuild import lease_prefix, rebuild_registry
from flows.wiring import connect
from pvar.config import PipelineConfig
from pvar.errors import LeaseError, ModelError
from tasks.engine.lease import hold
from tests.capsule.make import PLACE, environment, relocate
from tests.services.command_process import commands_in
from tests.services.prefect_server import PrefectServer, running
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
    for preset in folder.glob("*.yaml"):  # the default at its time
        tree = yaml.safe_load(preset.read_text())
        tree.setdefault("ingest", {})["strict_below_words"] = 0
        preset.write_text(yaml.safe_dump(tree))
    return folder


def test_there_is_a_capsule() -> None:
    assert CAPSULES


@pytest.mark.parametrize("capsule", CAPSULES, ids=IDS)
def test_commands_open_what_an_earlier_version_made(
    capsule: Path, tmp_path: Path, running_server: PrefectServer
) -> None:
    folder = unpack(capsule, tmp_path / "capsule")
    here = environment(folder) | {"PREFECT_API_URL": running_server.api}
    store = folder / "home/store"
    with commands_in(folder, here, tmp_path / "commands.log") as commands:
        assert commands.run("pvar show --preset second.yaml").count(" complete") == 10
        commands.run("pvar report latest --out report.html")
        assert "The selection" in (folder / "report.html").read_text()
        assert "for the capsule" in commands.run("pvar history capsule")
        lineage = commands.run("pvar lineage models:/capsule/2")
        for stage in ("ingest", "sample", "score", "select", "pair", "train"):
            assert f"{stage}/" in lineage
        # The second run made the champion: all of it is reused, and what a run names is kept.
        num_artifacts = len(list(store.rglob("manifest.json")))
        assert REUSED.search(commands.run("pvar run --preset second.yaml"))
        commands.run("pvar gc --delete")
        assert len(list(store.rglob("manifest.json"))) == num_artifacts

        # MLflow's copies of the models are not in the capsule.
        assert "versions 1, 2 made again" in commands.run("pvar registry rebuild capsule")
        assert "champion is version 1, it was version 2" in commands.run(
            "pvar rollback capsule --reason 'as a test'"
        )
        assert REUSED.search(commands.run("pvar run --preset first.yaml"))


@pytest.mark.parametrize("capsule", CAPSULES, ids=IDS)
def test_a_lost_registry_is_made_again_from_the_store(
    capsule: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what versions before this command registered."""
    folder = unpack_here(capsule, tmp_path, monkeypatch)
    before = connect()
    versions = before.registry.versions()
    history = read_history(before.registry, "capsule")
    assert len(versions) == 2
    first, second = [
        PipelineConfig.model_validate(yaml.safe_load((folder / f"{name}.yaml").read_text()))
        for name in ("first", "second")
    ]
    pinned = pin(second, before)
    lose(folder)

    lost = connect()
    with pytest.raises(ModelError, match=r"has no model 'capsule'.* rebuild capsule makes"):
        lost.registry.champion("capsule")
    (rebuilt,) = rebuild_registry(lost)
    assert (rebuilt.made, rebuilt.kept, rebuilt.gone) == ((1, 2), (), ())
    again = connect()
    found = again.registry.versions()
    assert [each.version for each in found] == [each.version for each in versions]
    for now, then in zip(found, versions, strict=True):  # with tags that came later
        assert then.tags.items() <= now.tags.items()
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

    # The champion's own configuration has the opponent that it had, with its location.
    assert pin(second, again) == pinned
    again.registry.roll_back("capsule", reason="as a test")
    assert pin(first, again).evaluate.opponent.startswith(f"{folder}/policy#sha256-")


@pytest.mark.parametrize("capsule", CAPSULES, ids=IDS)
def test_a_rebuild_goes_on_after_what_is_damaged_and_takes_what_is_approved(
    capsule: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpack_here(capsule, tmp_path, monkeypatch)
    first, second = [facts.version.artifact for facts in connect().registry.versions("capsule")]
    lose(folder)
    wiring = connect()
    damage(folder, first)
    (approved,) = [
        path.parent
        for path in (folder / "home/store/promote").glob("*/recipe.json")
        if '"approval"' in path.read_text()
    ]
    # The run of version 2 was not resumed after its approval.
    (approved / "manifest.json").unlink()
    shutil.rmtree(approved / "shards")
    wiring.store.write("promote/0123456789abcdef/recipe.json", b"{")

    with (
        hold(wiring.store, lease_prefix("capsule")),
        pytest.raises(LeaseError, match="rebuilds/capsule is held by process"),
    ):
        rebuild_registry(wiring)
    (rebuilt,) = rebuild_registry(wiring)
    assert (rebuilt.made, rebuilt.kept, rebuilt.champion) == ((2,), (), 2)
    unread, gone = rebuilt.gone
    assert "promote/0123456789abcdef cannot be read" in unread
    assert "capsule version 1 cannot be made again" in gone
    assert "sha256 is" in gone

    lose(folder)
    damage(folder, second)
    (rebuilt,) = rebuild_registry(connect())
    assert (rebuilt.made, rebuilt.champion) == ((), None)
    assert "version 2, the champion by the history, is not there" in rebuilt.gone[-1]


def unpack_here(capsule: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Unpack, and let commands of this process find it."""
    unpack(capsule, folder)
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    return folder


def lose(folder: Path) -> None:
    """MLflow's database and its copies of the models are gone."""
    shutil.rmtree(folder / "home/store/mlflow", ignore_errors=True)
    shutil.copy(empty_database(), folder / "home/mlflow.db")


def damage(folder: Path, artifact: str | None) -> None:
    """Write something else into a model's weights."""
    (weights,) = (folder / f"home/store/{artifact}").rglob("model.safetensors")
    weights.write_bytes(b"not these")


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
