"""What one does from Python: plan, make, read tables, open runs, start."""

import logging
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import api
from flows.run_record import NodeRecord, RunRecord, save_run
from infra.machine_memory import Memory
from pvar.errors import ConfigError, DamagedError, IncompleteError, InputError
from tests.workflow import Workflow, fake_settings, start_workflow

pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A workflow of which all but the last part is made."""
    flow = start_workflow(tmp_path_factory.mktemp("home"))
    flow.make("ingest", "sample", "score-vader", "select", "pair", "answers-opponent")
    return flow


@pytest.fixture
def preset(made: Workflow, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its preset, in an environment with its store."""
    settings = made.wiring.settings
    monkeypatch.setenv("PVAR_HOME", str(settings.home))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    path = settings.home / "preset.yaml"
    path.write_text(yaml.safe_dump(fake_settings(settings.home / "prompts.jsonl")))
    return path


def test_the_plan_is_a_table_of_nodes_and_their_states(made: Workflow, preset: Path) -> None:
    plan = api.load(preset).plan()
    assert plan["node"].tolist() == list(made.nodes)
    assert plan["artifact"].tolist() == [node.keys.root for node in made.nodes.values()]
    assert plan["state"].tolist() == ["complete"] * 5 + ["missing", "complete"] + ["missing"] * 3
    changed = api.load(preset, {"select": {"strategy": "random", "budget": {"count": 3}}})
    assert changed.plan()["state"].tolist()[:4] == ["complete"] * 3 + ["missing"]


def test_tables_are_read_as_arrow_as_pandas_and_in_parts(made: Workflow, preset: Path) -> None:
    run = api.load(str(preset))
    responses = run.table("sample")  # of six shards
    assert responses.num_rows == 84
    assert run.frame("sample", columns=["text"]).columns.tolist() == ["text"]
    assert sum(batch.num_rows for batch in run.dataset("sample").to_batches()) == 84
    variance = run.frame("select", "variance")
    figures = run.figures("select")
    assert figures == made.artifact("select").manifest.summary
    assert variance["selected"].sum() == figures["num_selected"]
    assert variance["pvar"].mean() == pytest.approx(figures["pvar_mean"])
    root = made.nodes["select"].keys.root
    assert run.table(root, "variance").num_rows == len(variance)
    assert run.figures(root[:-6]) == figures
    with pytest.raises(InputError, match="select/zz"):
        run.figures("select/zz")


def test_what_is_not_there_is_said_with_what_is(preset: Path) -> None:
    run = api.load(preset)
    with pytest.raises(InputError, match="select has several tables; give one of measures, varia"):
        run.table("select")
    with pytest.raises(InputError, match="sample has no table 'x'; give one of rejected, r"):
        run.frame("sample", "x")
    with pytest.raises(ConfigError, match="there is no node 'x'; this configuration has ingest, s"):
        run.table("x")
    with pytest.raises(IncompleteError, match="run stage evaluate first"):
        run.figures("evaluate")
    with pytest.raises(ConfigError, match=r"select\.strategi"):
        api.load(preset, {"select.strategi": "top"})


def test_a_damaged_file_is_not_read(preset: Path, tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    flow.make("ingest")
    run = api.PipelineRun(flow.config, flow.wiring, options=None)
    (path,) = (tmp_path / "store").glob("ingest/*/shards/*/prompts.parquet")
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(DamagedError, match="sha256"):
        run.table("ingest")


def test_local_copies_go_with_the_run(made: Workflow, preset: Path) -> None:
    run = api.load(preset)
    run.table("pair")
    (folder,) = (made.wiring.settings.home / "work").glob("python-*")
    gone = weakref.ref(run)
    del run
    assert gone() is None
    assert not folder.exists()


@pytest.fixture
def announced() -> Iterator[list[str]]:
    """The stages that were announced."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("flows.announcement"), Keep()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_what_a_node_needs_is_made_in_order(
    made: Workflow, preset: Path, announced: list[str]
) -> None:
    """All of it is there: nothing is recorded in MLflow, which would take seconds to begin."""
    run = api.load(preset)
    assert run.make("pair") == made.artifact("pair").manifest.summary
    names = ("ingest", "sample", "score-vader", "select", "pair")
    assert announced == [f"stage {n} of 5: {name}" for n, name in enumerate(names, start=1)]
    assert not (made.wiring.settings.home / "mlflow.db").exists()
    missing = api.load(preset, {"ingest.source": "/no/such/file.jsonl"})
    with pytest.raises(InputError, match=r"/no/such/file\.jsonl: no such file"):
        missing.make("select")


def test_what_does_not_fit_is_said_before_anything_is_made(
    preset: Path, announced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.preflight.read_memory", lambda: Memory(10**9, 10**9))
    monkeypatch.setattr("flows.preflight.read_gpu_memory", list)
    run = api.load(preset)
    with pytest.raises(InputError, match="train: training all weights of bundled:"):
        run.make("evaluate")
    assert announced == []
    run.make("pair")  # complete: it needs nothing


def record(flow: Workflow, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "run": "20260101-120000-aaaa",
        "started_at": "2026-01-01T12:00:00Z",
        "preset": None,
        "config": flow.config,
        "mlflow_run": "m",
        "mlflow_experiment": "1",
        "nodes": [NodeRecord(name="ingest", artifact=flow.nodes["ingest"].keys.root)],
    }
    return RunRecord.model_validate(values | changes)


def test_a_run_of_the_store_is_opened(made: Workflow, preset: Path) -> None:
    save_run(made.store, record(made))
    for name in ("latest", "20260101-120000-aaaa"):
        run = api.open_run(name)
        assert run.config == made.config
        assert run.table("pair").num_rows == run.figures("select")["num_selected"]
    with pytest.raises(ConfigError, match="load its preset to start it"):
        run.start()
    with pytest.raises(InputError, match="x"):
        api.open_run("x")


def test_a_start_that_fails_says_why(
    preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"/no/such/file\.jsonl: no such file"):
        api.load(preset, {"ingest.source": "/no/such/file.jsonl"}).start()
    none = tmp_path / "none.jsonl"
    none.write_text('{"prompt": ""}\n')
    with pytest.raises(ConfigError, match=r"pvar run --preset .* ended with exit code 2: ") as e:
        api.load(preset, {"ingest.source": str(none)}).start()
    assert str(e.value).endswith(capsys.readouterr().err.partition("error: ")[2].strip())
