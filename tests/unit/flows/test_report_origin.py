"""Where a run's artifacts are, and what they were made with."""

from pathlib import Path

from flows.report_origin import machines, stored_files
from pvar.machine import Machine
from tasks.report.data import MachineRow
from tests.workflow import start_workflow

OLD = Machine(hardware="1 × NVIDIA A100", versions={"pvar": "0.1.0"})
NEW = Machine(hardware="2 × NVIDIA H100", versions={"pvar": "0.2.0"})


def test_machines_and_files_of_artifacts(tmp_path: Path) -> None:
    workflow = start_workflow(tmp_path)
    workflow.make("ingest", "sample")
    artifacts = {name: workflow.artifact(name) for name in ("ingest", "sample")}
    assert machines(artifacts) == (MachineRow(("ingest", "sample"), None, {}),)
    for name, machine in (("ingest", OLD), ("sample", NEW), ("sample", OLD)):
        root = artifacts[name].keys.root
        workflow.store.write(f"{root}/{machine.key}", machine.model_dump_json().encode())
    assert sorted(machines(artifacts)) == [
        MachineRow(("ingest", "sample"), OLD.hardware, OLD.versions),
        MachineRow(("sample",), NEW.hardware, NEW.versions),
    ]
    files = stored_files(artifacts["sample"])
    tables = [file for file in files if file.name.endswith("/responses.parquet")]
    assert len(tables) > 1
    assert sum(file.rows or 0 for file in tables) == 84
    for file in files:
        path = Path(file.target.removeprefix("file://"))
        assert path.stat().st_size == file.num_bytes
