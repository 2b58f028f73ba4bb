"""`pvar gc`: shows first, deletes what it showed, and never what is referred to."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from flows.commands.gc import gc
from flows.garbage_collection import carry_out, plan_sweep
from flows.wiring import connect
from pvar.artifacts import WaitingRecord
from pvar.errors import DamagedError
from pvar.ports import Store
from pvar.retrain_decision import Batch
from tasks.engine.artifact import ArtifactKeys
from tasks.retraining.batches import record_success, to_json
from tests.artifacts import put_artifact
from tests.services.registry import RegistryNeighbours


class Kept(NamedTuple):
    """One artifact for each reason to stay, and one without any."""

    neighbours: RegistryNeighbours
    of_old_run: ArtifactKeys
    of_new_run: ArtifactKeys
    of_comparison: ArtifactKeys
    of_version: ArtifactKeys
    results: ArtifactKeys
    opponent: ArtifactKeys
    garbage: ArtifactKeys

    def there(self) -> set[str]:
        """Artifacts in the store."""
        keys = [info.key for info in self.neighbours.store.list("")]
        return {
            key.removesuffix("/manifest.json") for key in keys if key.endswith("/manifest.json")
        }


def save_run(store: Store, name: str, *artifacts: ArtifactKeys, folder: str = "runs") -> None:
    """As much of a run's record as matters, and what a later version might add."""
    nodes = [{"name": "n", "artifact": keys.root, "new_field": 1} for keys in artifacts]
    store.write(f"{folder}/{name}.json", json.dumps({"run": name, "nodes": nodes}).encode())
    store.write(f"{folder}/{name}.html", b"<html>")


@pytest.fixture
def kept(tmp_path: Path, file_store: Store, monkeypatch: pytest.MonkeyPatch) -> Kept:
    neighbours = RegistryNeighbours(tmp_path, file_store)
    for name, value in {**neighbours.environment(), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    kept = Kept(
        neighbours,
        of_old_run=put_artifact(file_store, "ingest", config={"source": "old"}),
        of_new_run=put_artifact(file_store, "ingest", config={"source": "new"}),
        of_comparison=put_artifact(file_store, "train", config={"seed": 4}),
        of_version=put_artifact(
            file_store, "train", config={"seed": 1}, files={"model/config.json": b"{}"}
        ),
        results=put_artifact(file_store, "evaluate", config={"seed": 1}),
        opponent=put_artifact(file_store, "train", config={"seed": 2}),
        garbage=put_artifact(file_store, "sample", config={"seed": 3}),
    )
    save_run(file_store, "20260101-120000-aa", kept.of_old_run)
    save_run(file_store, "20260201-120000-bb", kept.of_new_run)
    save_run(file_store, "compare-20260115-120000-ab", kept.of_comparison, folder="comparisons")
    opponent = f"artifact:{kept.opponent.root}#{kept.opponent.root}"
    neighbours.register(kept.of_version.root, results=kept.results.root, opponent=opponent)
    return kept


def test_nothing_is_deleted_without_being_asked(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    before = kept.there()
    gc(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [each["root"] for each in found["artifacts"]] == [kept.garbage.root]
    assert (found["num_needed"], found["num_deleted"]) == (6, None)
    gc()
    assert kept.there() == before
    printed = capsys.readouterr().out
    assert kept.garbage.root in printed
    assert "1 artifacts" in printed
    assert "nothing was deleted; add --delete" in printed
    for keys in kept[1:-1]:
        assert keys.root not in printed


def test_only_what_nothing_refers_to_is_deleted(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    before = kept.there()
    gc(delete=True)
    assert before - kept.there() == {kept.garbage.root}
    assert kept.garbage.root in capsys.readouterr().out
    gc(delete=True)
    assert "deleted 0 artifacts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keep_runs", "goes"),
    [
        (3, set()),
        (2, {"of_old_run"}),  # the comparison came between the two
        (1, {"of_old_run", "of_comparison"}),
        (0, {"of_old_run", "of_comparison", "of_new_run"}),
    ],
)
def test_only_the_newest_runs_count_if_so_asked(kept: Kept, keep_runs: int, goes: set[str]) -> None:
    before = kept.there()
    gc(keep_runs=keep_runs, delete=True)
    expected = {getattr(kept, name).root for name in goes} | {kept.garbage.root}
    assert before - kept.there() == expected


def test_audits_push_no_run_out_and_keep_their_own(kept: Kept) -> None:
    """Also those that failed, of which each retraining may leave one."""
    audited = put_artifact(kept.neighbours.store, "evaluate", config={"seed": 7})
    for day in range(1, 6):
        name = f"audit-2026030{day}-120000-aa"
        save_run(kept.neighbours.store, name, audited, folder="audits")
    before = kept.there()
    gc(keep_runs=2, delete=True)
    assert before - kept.there() == {kept.of_old_run.root, kept.garbage.root}


def test_the_decision_on_a_batchs_labels_stays_longer_than_its_run(kept: Kept) -> None:
    store = kept.neighbours.store
    decision = put_artifact(store, "adopt", config={"seed": 1})
    other = put_artifact(store, "pair", config={"seed": 1})
    of_no_batch = put_artifact(store, "adopt", config={"seed": 2})
    save_run(store, "20260102-120000-dd", decision, other)
    save_run(store, "20260103-120000-ee", of_no_batch)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    batch = Batch(
        number=1, created_at=now, data="retrain/data/a", files=(), duplicates=(), reasons=()
    )
    store.write("retrain/batches/000001/batch.json", to_json(batch))
    record_success(store, batch, "20260102-120000-dd", now)
    gc(keep_runs=1, delete=True)
    assert decision.root in kept.there()
    assert not {other.root, of_no_batch.root, kept.of_old_run.root} & kept.there()


def test_a_run_that_still_waits_for_a_person_keeps_what_it_needs(kept: Kept) -> None:
    """Only until somebody goes on with it: the record of the first run says `waiting` for ever."""
    store, asks = kept.neighbours.store, ArtifactKeys("annotate", "0123456789abcdef")
    nodes = [
        {"name": "ingest", "artifact": kept.of_old_run.root, "state": "made"},
        {"name": "annotate", "artifact": asks.root, "state": "waiting"},
    ]
    store.write("runs/20260101-110000-ww.json", json.dumps({"nodes": nodes}).encode())
    waiting = WaitingRecord(what="answers", how_to_go_on="answer", since=datetime.now(UTC))
    store.write(asks.waiting, waiting.to_json())
    gc(keep_runs=0, delete=True)
    assert kept.of_old_run.root in kept.there()
    assert kept.of_new_run.root not in kept.there()
    store.delete(asks.waiting)
    gc(keep_runs=0, delete=True)
    assert kept.of_old_run.root not in kept.there()


def test_a_run_that_starts_meanwhile_keeps_what_it_names(kept: Kept) -> None:
    wiring = connect()
    sweep = plan_sweep(wiring, None)
    save_run(kept.neighbours.store, "20260301-120000-cc", kept.garbage)
    assert carry_out(sweep, wiring) == 0
    assert kept.garbage.root in kept.there()


def test_a_run_record_that_cannot_be_read_stops_everything(kept: Kept) -> None:
    kept.neighbours.store.write("runs/20260301-120000-cc.json", b"{")
    with pytest.raises(DamagedError, match=r"runs/20260301-120000-cc\.json is not a valid run"):
        gc(delete=True)
    assert kept.garbage.root in kept.there()


def test_the_work_folder_of_a_dead_process_goes(kept: Kept) -> None:
    folder = kept.neighbours.folder / "home/work/train-abc"
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    hours_ago = time.time() - 2 * 3600
    os.utime(folder / ".lock", (hours_ago, hours_ago))
    gc()
    assert folder.exists()
    gc(delete=True)
    assert not folder.exists()


_USE_A_MODEL = """
import sys, time
from flows.wiring import connect
print(connect().model_folder(sys.argv[1]), flush=True)
time.sleep(600)
"""


def test_copies_of_models_go_when_no_process_uses_one(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    user = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _USE_A_MODEL,
            f"artifact:{kept.of_version.root}#{kept.of_version.root}",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    copy = Path(user.stdout.readline().strip())
    assert any(copy.iterdir())
    gc(delete=True)
    assert any(copy.iterdir())
    assert "0 local copies" in capsys.readouterr().out
    user.kill()
    user.communicate()

    gc()
    printed = capsys.readouterr().out
    assert str(kept.neighbours.folder / "home/models" / kept.of_version.root) in printed
    assert "1 local copies" in printed
    assert any(copy.iterdir())
    before = kept.there()
    gc(delete=True)
    assert not copy.exists()
    assert kept.there() == before
