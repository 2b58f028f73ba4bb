"""Retraining asks models about the labels that arrive, and holds a batch that they are against."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import retrain_audit, retrain_batch, retraining
from flows.batch_labels import agreement_of, disputed_rows
from flows.commands import batches as commands
from flows.retrain_audit import with_new_labels
from flows.retraining import RetrainResult
from flows.run_record import RunRecord, save_run
from flows.wiring import Wiring
from pvar.config import PipelineConfig
from pvar.errors import InputError
from pvar.ports import Store
from pvar.retrain_decision import Batch, RetrainConfig
from tasks.engine.node import Node
from tasks.retraining.batch_states import find_record, read_records
from tests.workflow import Workflow, fake_settings, open_wiring

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
GOOD, BAD = "A wonderful, lovely stay.", "A horrible, awful stay."
NUM_LABELS = 100


def settings(**changes: Any) -> PipelineConfig:
    given = {
        "ingest.source_field": "source",
        "label_audit": {"max_judged": 40},
        "promote": {"mode": "never"},
        **changes,
    }
    return PipelineConfig.model_validate(fake_settings(Path("replaced"), **given))


CONFIG = RetrainConfig(min_new_pairs=1, pipeline=settings())


class Runs:
    """A store with retrainings whose pipelines succeed without a run."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.configs: list[PipelineConfig] = []
        self.asked: list[str] = []

    @property
    def store(self) -> Store:
        return self.wiring.store

    def succeed(self, config: PipelineConfig) -> str:
        self.configs.append(config)
        run = f"20260311-{len(self.configs)}"
        record = RunRecord(
            run=run,
            started_at=NOW,
            preset=None,
            config=config,
            mlflow_run="",
            mlflow_experiment="",
            nodes=(),
        )
        save_run(self.store, record)
        return run

    def ask(self, node: Node, config: PipelineConfig, wiring: Wiring, _: str) -> None:
        self.asked.append(node.name)
        Workflow(config, wiring).make(node.name)

    def arrive(self, day: str, agreeing: dict[str, int]) -> None:
        """New labels of these sources. VADER agrees with so many, and bob labels the others."""
        rows = [
            {
                "prompt": f"{day}, {source}, {number}",
                "chosen": GOOD if number < num_agreeing else BAD,
                "rejected": BAD if number < num_agreeing else GOOD,
                "source": source,
                "who": "ann" if number < num_agreeing or number % 2 else "bob",
            }
            for source, num_agreeing in agreeing.items()
            for number in range(NUM_LABELS)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        self.store.write(f"incoming/{day}.jsonl", lines.encode())

    def retrain(self, config: RetrainConfig = CONFIG) -> RetrainResult:
        return retraining.retrain.fn(config)

    def states(self) -> list[str]:
        return [record.state(is_retraining=False) for record in read_records(self.store)]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    silent: Callable[..., str] = lambda *_, **__: ""  # noqa: E731
    tracking: Any = SimpleNamespace(
        start_run=silent, log_summary=silent, end_run=silent, end_failed_run=silent
    )
    found = Runs(replace(open_wiring(tmp_path), tracking=tracking))
    monkeypatch.setattr(retraining, "connect", lambda: found.wiring)
    monkeypatch.setattr(retrain_batch, "pipeline", found.succeed)
    monkeypatch.setattr(retrain_audit, "run_node", found.ask)
    return found


def shown(capsys: pytest.CaptureFixture[str], command: Callable[..., None], *args: Any) -> Any:
    capsys.readouterr()
    command(*args, as_json=True)
    return json.loads(capsys.readouterr().out)


def test_a_batch_with_flipped_labels_is_held_until_a_person_accepts_it(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.arrive("monday", {"web": 80, "mail": 80})
    assert len(runs.retrain().runs) == 1
    runs.arrive("tuesday", {"web": 50, "mail": 80})
    held = runs.retrain()
    assert held.runs == ()
    (sentence,) = held.waiting
    assert "batch 2 waits for a person" in sentence
    assert "source web: vader agrees with 50.0% of 100 labels, with 80.0%" in sentence
    assert "source mail" not in sentence
    record = find_record(runs.store, 2)
    assert (record.state(is_retraining=False), record.attempts) == ("waiting_for_labels", ())

    # Others go on, and labels that nobody accepted are nothing to compare with.
    runs.arrive("wednesday", {"web": 79, "mail": 80})
    later = runs.retrain()
    assert (len(later.runs), later.waiting) == (1, (sentence,))
    assert runs.states() == ["done", "waiting_for_labels", "done"]

    disputed = disputed_rows(runs.wiring, record)
    assert {(row["source"], row["chosen"]) for row in disputed} == {("web", BAD)}
    assert len(disputed) == 50
    commands.show(2, out=tmp_path / "rows.jsonl")
    assert "pvar batches accept 2" in capsys.readouterr().out
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 50
    (row,) = [each for each in shown(capsys, commands.batches) if each["number"] == 2]
    assert row["disagreements"][0].startswith("source web")

    num_asked = len(runs.asked)
    commands.accept(2, reason="the people of web changed their minds")
    result = runs.retrain()
    assert (len(result.runs), result.waiting) == (1, ())
    assert runs.states() == ["done", "done", "done"]
    assert len(runs.asked) == num_asked  # what models said before the batch was seen is kept
    audit = runs.configs[-1].label_audit
    assert audit is not None
    assert audit.num_rows == 2 * NUM_LABELS
    curve = [
        (row["batch"], row["agreement"])
        for row in shown(capsys, commands.agreement)
        if (row["model"], row["group"]) == ("vader", "web")
    ]
    assert curve == [(1, 0.8), (2, 0.5), (3, 0.79)]


def test_an_annotator_is_named(runs: Runs) -> None:
    config = CONFIG.model_copy(
        update={"pipeline": settings(label_audit={"annotator_field": "who", "max_judged": 0})}
    )
    runs.arrive("monday", {"web": 80})
    runs.retrain(config)
    runs.arrive("tuesday", {"web": 20})
    held = runs.retrain(config).waiting[0]
    assert "annotator bob: vader agrees with 0.0% of 40 labels, less than half" in held


def test_labels_that_a_person_rejects_are_not_trained_on(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.arrive("monday", {"web": 80, "mail": 20})
    assert "source mail: vader agrees with 20.0%" in runs.retrain().waiting[0]
    commands.reject(1, reason="mail was exported upside down")
    assert runs.retrain() == RetrainResult(
        runs=(), batch=None, reasons=("no new data",), quarantined=()
    )
    assert runs.states() == ["set_aside"]
    set_aside = find_record(runs.store, 1).set_aside
    assert set_aside is not None
    assert set_aside.reason == "mail was exported upside down"
    with pytest.raises(InputError, match="it is set aside"):
        commands.accept(1, reason="no")
    capsys.readouterr()
    commands.retry(1, as_json=True)
    assert json.loads(capsys.readouterr().out)["state"] == runs.states()[0] == "waiting_for_labels"
    commands.accept(1, reason="it was not", as_json=True)
    accepted = json.loads(capsys.readouterr().out)
    assert (accepted["number"], accepted["state"]) == (1, runs.states()[0])
    assert accepted["labels_accepted"]["reason"] == "it was not"
    with pytest.raises(InputError, match="is not held because of its labels"):
        commands.reject(1, reason="yes")


@pytest.mark.parametrize(
    ("config", "num_counts"),
    [
        (CONFIG.model_copy(update={"hold": None}), 4),  # two models, two sources
        (RetrainConfig(min_new_pairs=1, pipeline=settings(label_audit=None)), 0),
    ],
)
def test_without_holding_a_batch_is_run_and_without_an_audit_nobody_is_asked(
    runs: Runs, config: RetrainConfig, num_counts: int
) -> None:
    runs.arrive("monday", {"web": 80, "mail": 20})
    assert len(runs.retrain(config).runs) == 1
    assert len(agreement_of(read_records(runs.store))) == num_counts


def test_a_kill_after_a_batch_is_held_does_not_count(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.arrive("monday", {"web": 80, "mail": 20})
    with monkeypatch.context() as patched:
        patched.setattr(retrain_batch, "take_back", lambda *_: None)
        runs.retrain()
    assert len(find_record(runs.store, 1).attempts) == 1
    assert len(runs.retrain().waiting) == 1
    assert find_record(runs.store, 1).attempts == ()


def test_a_batch_without_labels_is_not_audited() -> None:
    batch = Batch(
        number=1,
        created_at=NOW,
        data="retrain/data/x",
        files=(),
        duplicates=(),
        reasons=(),
        num_labelled=0,
    )
    assert with_new_labels(settings(), batch).label_audit is None
