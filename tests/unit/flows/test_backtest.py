"""Twelve weeks of files replayed by two policies, whose runs are made up: clock, files, kills."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import retrain_batch, wiring
from flows.backtest import run_backtest
from flows.backtest_outcomes import batch_agreement
from flows.run_record import NodeRecord, RunRecord, save_run
from flows.study_processes import PartEnd
from infra.registered_models import VersionFacts
from infra.row_files import read_rows
from infra.settings import Settings
from infra.store import open_store
from pvar.backtest_config import BacktestConfig
from pvar.backtest_result import BacktestResult
from pvar.config import PipelineConfig
from pvar.digest import prompt_id
from pvar.errors import ConfigError, InputError, StoreError
from pvar.evaluation.label_audit import AgreementCounts
from pvar.ports import RegisteredVersion
from pvar.records import Message
from pvar.retrain_decision import Batch
from tasks.retraining.batch_states import RetrainingBatch
from tasks.retraining.label_audits import LabelAudit
from tasks.retraining.withdrawals import withdraw
from tasks.stages.promote import PromotionRecord
from tests.artifacts import put_artifact
from tests.study_parts import policies_in_this_process
from tests.workflow import fake_settings

WEEKS, ROWS = 12, 3
START = datetime(2026, 1, 5, tzinfo=UTC)


class KilledError(BaseException):
    """As `kill -9`: nothing of the product sees it."""


@dataclass
class Runs:
    """The pipeline of these tests: a model is promoted if it was trained on ten rows or more."""

    monkeypatch: pytest.MonkeyPatch
    calls: int = 0
    dies_at: int | None = None
    error: Exception | None = None
    tags: dict[str, dict[int, dict[str, str]]] = field(default_factory=dict)
    """Of the versions, by the policy's home."""

    def run(self, config: PipelineConfig) -> str:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KilledError
        if self.error is not None:
            raise self.error
        store, home = open_store(os.environ["PVAR_STORE_URI"]), os.environ["PVAR_HOME"]
        source = config.ingest.source.removeprefix("file://")
        num_rows = sum(1 for _ in read_rows(Path(source)))
        tags = self.tags.setdefault(home, {})
        version = len(tags) + 1
        tags[version] = {
            "pvar.exam": "e", "pvar.exam_conditions": "c",
            "pvar.first.win_rate": f"{num_rows / 100}",
            "pvar.first.win_rate_lower": "0.0", "pvar.first.win_rate_upper": "1.0",
        }  # fmt: skip
        passed = num_rows >= 10
        decision = PromotionRecord(
            passed=passed, promoted=passed, decision=None, note="", model_name="m", version=version,
            checks=(("win_rate_lower", num_rows / 100, 0.1, passed),), previous_version=None,
        )  # fmt: skip
        keys = put_artifact(
            store, "promote", config={"version": version},
            files={"decision.json": decision.model_dump_json().encode()},
        )  # fmt: skip
        sampled = put_artifact(
            store, "sample", config={"source": source}, summary={"num_tokens": 7}
        )
        pinned = config.ingest.model_copy(update={"source": f"{source}#sha256-0"})
        config = config.model_copy(update={"ingest": pinned})
        run = RunRecord(
            run=f"run-{version:02d}", started_at=START, preset=None, config=config,
            mlflow_run="", mlflow_experiment="",
            nodes=(
                NodeRecord(name="sample", artifact=sampled.root, state="made", seconds=2.0),
                NodeRecord(name="promote", artifact=keys.root, state="made", seconds=1.0),
            ),
        )  # fmt: skip
        save_run(store, run)
        return run.run

    def versions(self, _: str) -> list[VersionFacts]:
        found = self.tags.get(os.environ["PVAR_HOME"], {})
        return [
            VersionFacts(RegisteredVersion("m", number, None), tags)
            for number, tags in found.items()
        ]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("PVAR_HOME", str(tmp_path / "home"))
    made = Runs(monkeypatch)
    connected = wiring.connect
    registry: Any = SimpleNamespace(versions=made.versions)

    def connect(settings: Settings | None = None) -> wiring.Wiring:
        return replace(connected(settings), registry=registry)

    monkeypatch.setattr("flows.wiring.connect", connect)  # as the members of a backtest import it
    monkeypatch.setattr("flows.backtest.run_parts", policies_in_this_process)
    monkeypatch.setattr(retrain_batch, "pipeline", made.run)
    record_end = retrain_batch.record_end

    def end(batch: Any, attempt: Any, error: BaseException, wiring: Any) -> None:
        if not isinstance(error, KilledError):
            record_end(batch, attempt, error, wiring)

    monkeypatch.setattr(retrain_batch, "record_end", end)
    return made


@pytest.fixture
def history(tmp_path: Path) -> Path:
    folder = tmp_path / "history"
    folder.mkdir()
    for week in range(WEEKS):
        rows = [{"prompt": f"Prompt {row} of week {week}?"} for row in range(ROWS)]
        path = folder / f"{START + timedelta(weeks=week):%Y-%m-%d}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / ".upload").write_text("not yet a file")
    return folder


def config(history: Path, **changes: Any) -> BacktestConfig:
    changed: dict[str, Any] = {"evaluate.opponent": "champion", "promote.model_name": "m"}
    retrain = {
        "min_new_pairs": 1,
        "min_exam_prompts": 1,
        "max_attempts": 2,
        "pipeline": fake_settings(Path("replaced"), **changed),
    }
    tree = {
        "batches": str(history),
        "retrain": retrain,
        "policies": {"plain": {}, "replayed": {"replay": {}}},
        "every_days": None,
        **changes,
    }
    return BacktestConfig.model_validate(tree)


def without_times(result: BacktestResult) -> Any:
    """The JSON without what another start may change: ids of runs, seconds, folders."""
    tree = json.loads(result.model_dump_json())
    for policy in tree["policies"]:
        del policy["folder"]
        for batch in policy["batches"]:
            del batch["run"], batch["seconds"]
    return tree


def test_files_arrive_at_their_times_and_policies_differ_in_what_they_replay(
    runs: Runs, history: Path
) -> None:
    result, folder = run_backtest(config(history))
    plain, replayed = result.policies
    for policy in result.policies:
        assert policy.is_complete
        assert [batch.made_at for batch in policy.batches] == [
            START + timedelta(weeks=week) for week in range(WEEKS)
        ]
        assert {batch.num_rows for batch in policy.batches} == {ROWS}
        assert policy.unused_files == ()
    # A batch of 3 rows with all earlier ones has 10 rows from the fourth on: 3 + 9.
    assert [batch.num_replayed for batch in replayed.batches] == [3 * week for week in range(WEEKS)]
    assert {batch.fate for batch in plain.batches} == {"not promoted"}
    assert plain.batches[0].why == ("win_rate_lower is 0.030, bound 0.1",)
    assert [batch.fate for batch in replayed.batches] == ["not promoted"] * 3 + ["promoted"] * 9
    assert replayed.batches[-1].against_first is not None
    assert replayed.batches[-1].against_first.rate == 0.36
    assert {batch.num_tokens for batch in replayed.batches} == {7}
    assert {batch.seconds for batch in replayed.batches} == {3.0}
    assert json.loads((folder / "backtest.json").read_bytes()) == json.loads(
        result.model_dump_json()
    )
    assert "9 of 12 batches under replayed" in (folder / "backtest.html").read_text()
    home = folder.parents[1]
    (own,) = folder.glob("plain-*")
    assert (own / "models").resolve() == (home / "models").resolve()
    assert {path.name for path in home.iterdir()} == {"backtests", "models", "work"}


def test_the_same_command_again_runs_nothing_and_a_further_policy_leaves_the_others(
    runs: Runs, history: Path
) -> None:
    first, _ = run_backtest(config(history))
    assert runs.calls == 2 * WEEKS
    again, _ = run_backtest(config(history))
    assert (runs.calls, again) == (2 * WEEKS, first)
    further = {"plain": {}, "never": {"promote.mode": "never"}}
    third, _ = run_backtest(config(history, policies=further))
    assert runs.calls == 3 * WEEKS
    assert third.policies[0] == first.policies[0]


@pytest.mark.parametrize("dies_at", [1, 18])
def test_a_backtest_that_was_killed_goes_on_to_the_same_result(
    runs: Runs, history: Path, dies_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.dies_at = dies_at
    with pytest.raises(KilledError):
        run_backtest(config(history))
    killed, _ = run_backtest(config(history))
    assert runs.calls == 2 * WEEKS + 1
    monkeypatch.setenv("PVAR_HOME", str(tmp_path / "another-home"))
    whole, _ = run_backtest(config(history))
    assert without_times(killed) == without_times(whole)


def test_an_outage_ends_the_replay_of_one_policy_and_is_no_pause_of_a_batch(
    runs: Runs, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts(root: str, names: Sequence[str], **options: Any) -> Iterator[PartEnd]:
        for name in names:
            try:
                yield from policies_in_this_process(root, [name], **options)
            except StoreError as error:
                yield PartEnd(name, str(error), 1.0)

    monkeypatch.setattr("flows.backtest.run_parts", parts)
    runs.error = StoreError("the store is away")
    only = config(history, policies={"replayed": {"replay": {}}})
    (policy,) = run_backtest(only)[0].policies
    assert (policy.error, policy.is_complete) == ("the store is away", False)
    runs.error = None
    (policy,) = run_backtest(only)[0].policies
    assert (policy.error, policy.is_complete) == (None, True)
    assert policy.batches[0].made_at == START
    assert len(policy.promoted) == 9


def test_a_batch_whose_runs_fail_is_tried_at_the_next_look_and_set_aside(
    runs: Runs, history: Path
) -> None:
    runs.error = ValueError("row 3 is bad")
    only = config(history, policies={"plain": {}}, every_days=7)
    result, _ = run_backtest(only)
    (policy,) = result.policies
    assert policy.error is None
    assert policy.batches[0].fate == "set aside"
    assert policy.batches[0].seconds is None  # it has no record of a run
    assert policy.batches[0].why == ("ValueError: row 3 is bad",) * 2


@pytest.mark.usefixtures("runs")
def test_an_error_that_counts_against_no_batch_ends_the_replay(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr("flows.retraining.audit_due", fail)
    with pytest.raises(KeyError, match="a fault of ours"):
        run_backtest(config(history, policies={"plain": {}}))


def test_prompts_that_are_withdrawn_today_are_not_used(runs: Runs, history: Path) -> None:
    prompt = prompt_id([Message("user", "Prompt 0 of week 0?")])
    withdraw(wiring.connect().store, [prompt], reason=None, now=START)
    (policy,) = run_backtest(config(history, policies={"plain": {}}))[0].policies
    assert [batch.num_rows for batch in policy.batches] == [ROWS - 1, *[ROWS] * (WEEKS - 1)]


def test_models_of_today_and_stages_on_pools_are_refused(runs: Runs, history: Path) -> None:
    alias = {"a": {"policy": "models:/pvar@champion"}}
    with pytest.raises(ConfigError, match="policy is models:/pvar@champion: an alias names"):
        run_backtest(config(history, policies=alias))
    placed = {"a": {"runtime.placement.train.pool": "gpus"}}
    with pytest.raises(ConfigError, match="policy a: train run on work pools"):
        run_backtest(config(history, policies=placed))


def test_a_folder_without_files_is_refused(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing has no files"):
        run_backtest(config(tmp_path / "nothing"))


def test_agreement_is_over_the_sources_of_a_batch_and_by_model() -> None:
    def counted(kind: Any, grouping: Any, group: str, *numbers: int) -> AgreementCounts:
        agree, tie, disagree = numbers
        return AgreementCounts(
            kind=kind, model="rm", settings="s", grouping=grouping, group=group,
            num_agree=agree, num_tie=tie, num_disagree=disagree, num_missing=5,
        )  # fmt: skip

    audit = LabelAudit(
        at=START,
        counts=(
            counted("reward_model", "source", "web", 8, 0, 2),
            counted("reward_model", "source", "app", 1, 1, 0),
            counted("reward_model", "annotator", "kim", 0, 0, 9),  # those labels once more
            counted("champion", "source", "web", 3, 0, 1),
            counted("judge", "source", "web", 0, 0, 0),  # nothing is known
        ),
        disagreements=(),
        rows=(),
        is_held=False,
    )
    batch = Batch(number=1, created_at=START, data="d", files=(), duplicates=(), reasons=())
    # 8 + 1 agree, one tie counts a half, of 12 labels.
    assert batch_agreement(RetrainingBatch(batch, audit=audit)) == {
        "rm": pytest.approx(9.5 / 12),
        "champion": 0.75,
    }
    assert batch_agreement(RetrainingBatch(batch)) == {}
