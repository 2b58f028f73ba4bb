"""Rounds: from which model each starts, what an interruption changes, and when they end.

The runs are fakes: their plans, pins and records are real, and what they train is a name.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import rounds as rounds_flow
from flows.pinning import pin
from flows.round_record import RoundRecord, ended_rounds, read_rounds
from flows.run_record import NodeRecord, RunRecord, save_run
from infra.store import open_store
from pvar.artifacts import WaitingRecord
from pvar.config import PipelineConfig
from pvar.digest import prompt_id
from pvar.errors import ConfigError
from pvar.pool_variance import PoolVariance
from pvar.ports import RegisteredVersion, Store
from pvar.records import Message, Row
from pvar.references import Pinned
from pvar.round_rules import RoundResult, RoundsConfig
from tasks.graph import plan_nodes, train_keys
from tasks.retraining.withdrawals import withdraw
from tasks.stages.annotate import keep_answers
from tests.workflow import TOPICS, fake_settings, write_prompts

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
APPROVAL = WaitingRecord(what="approval of pvar version 1", how_to_go_on="pvar approve", since=NOW)


class KillableStore:
    """A store at whose n-th write, leases apart, the process is ended."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.writes_left: int | None = None

    def write(self, key: str, data: bytes) -> None:
        self._end_if_due(key)
        self._store.write(key, data)

    def upload(self, path: Path, key: str) -> None:
        self._end_if_due(key)
        self._store.upload(path, key)

    def _end_if_due(self, key: str) -> None:
        if self.writes_left is None or "/leases/" in key:
            return
        if self.writes_left == 0:
            self.writes_left = None
            raise KeyboardInterrupt
        self.writes_left -= 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@dataclass
class World:
    """MLflow's champion, and runs whose gates pass as it is written down for each model."""

    store: KillableStore
    gates: Sequence[bool]
    means: Sequence[float] = ()
    """Mean PVar of the pool by round; all 0.1 if empty."""
    champions: list[RegisteredVersion] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    """By the artifact of the model."""
    asks: bool = False
    """Whether a person is asked, who has not answered yet."""
    asks_at: str = "promote"
    """The node at which a person is asked."""
    num_runs: int = 0

    def champion(self, _: str) -> RegisteredVersion | None:
        return self.champions[-1] if self.champions else None

    def resolve(self, reference: str) -> RegisteredVersion:
        (found,) = (each for each in self.champions if reference == f"models:/pvar/{each.version}")
        return found

    def run(self, config: PipelineConfig) -> str:
        self.num_runs += 1
        own = train_keys(config).root
        name = f"run-{own[-16:]}"
        version = self.versions.setdefault(own, len(self.versions) + 1)
        waits = self.asks and self.gates[version - 1]
        if self.gates[version - 1] and not waits:
            self.promote(own, version, config.evaluate.opponent)
        state = {"state": "waiting", "waiting": APPROVAL} if waits else {"state": "made"}
        name_of_node = self.asks_at if waits else "promote"
        node = NodeRecord.model_validate(
            {"name": name_of_node, "artifact": f"{name_of_node}/x", **state}
        )
        record = RunRecord(
            run=name,
            started_at=NOW,
            preset=None,
            config=config,
            mlflow_run="",
            mlflow_experiment="",
            nodes=(node,),
        )
        save_run(self.store, record)  # type: ignore[arg-type]
        return name

    def promote(self, own: str, version: int, opponent: str) -> None:
        if all(each.artifact != own for each in self.champions):
            self.champions.append(RegisteredVersion("pvar", version, own, opponent))

    def read(self, number: int, run: RunRecord, first: PoolVariance | None, _: Any) -> RoundResult:
        assert (first is None) == (number == 1)
        own = train_keys(run.config).root
        nothing: dict[str, Any] = dict.fromkeys(RoundResult.model_fields)
        mean = self.means[number - 1] if self.means else 0.1
        pool = {"num_prompts": 9, "scales": (1.0,), "mean": mean, "quantiles": (mean,) * 5}
        known = {
            "number": number,
            "run": run.run,
            "start": Pinned.parse(run.config.policy).location,
            "source": Pinned.parse(run.config.ingest.source).location,
            "pool": {**pool, "share_above": 0.5, "saturated_share": 0.0},
            "num_selected": 4,
            "gate_passed": self.gates[self.versions[own] - 1],
            "replaced": False,
            "promoted": any(each.artifact == own for each in self.champions),
            "version": self.versions[own],
            "seconds": 1.0,
        }
        return RoundResult.model_validate(nothing | known)


Begin = Callable[..., World]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """A world of its own, with an empty store, for the flow."""

    def new_world(*gates: bool, means: Sequence[float] = (), asks: bool = False) -> World:
        folder = tmp_path / f"store-{len(list(tmp_path.iterdir()))}"
        store = KillableStore(open_store(str(folder)))
        world = World(store, gates, means, asks=asks)
        settings = SimpleNamespace(home=tmp_path / "home")
        wiring = SimpleNamespace(store=store, registry=world, settings=settings)
        monkeypatch.setattr(rounds_flow, "connect", lambda: wiring)
        monkeypatch.setattr(rounds_flow, "pipeline", world.run)
        monkeypatch.setattr(rounds_flow, "read_round", world.read)
        monkeypatch.setattr(
            "flows.retrain_batch.is_approval_decided",
            lambda *_: not world.asks or world.asks_at != "promote",
        )
        monkeypatch.setattr(rounds_flow, "render_rounds", lambda result: result.name)
        return world

    return new_world


@pytest.fixture
def pipeline(tmp_path: Path) -> PipelineConfig:
    source = write_prompts(tmp_path / "prompts.jsonl")
    changes = {"opponent": "champion", "judge": {"kind": "fake"}}
    return PipelineConfig.model_validate(fake_settings(source, evaluate=changes))


def run(config: RoundsConfig) -> Any:
    return rounds_flow.rounds.fn(config)


def records(world: World) -> list[RoundRecord]:
    return read_rounds(world.store, "pvar")  # type: ignore[arg-type]


def as_made(world: World) -> list[RoundRecord]:
    """The records without the times of this run."""
    return [record.model_copy(update={"began_at": NOW}) for record in records(world)]


def policies(world: World) -> list[str]:
    return [Pinned.parse(record.config.policy).digest for record in records(world)]


def test_each_round_starts_from_the_champion_of_the_last(
    begin: Begin, pipeline: PipelineConfig
) -> None:
    world = begin(True, True, True)
    result = run(RoundsConfig(rounds=3, pipeline=pipeline))
    assert result.end.rule == "rounds"
    promoted = [champion.artifact for champion in world.champions]
    assert len(set(promoted)) == 3
    assert policies(world)[1:] == promoted[:2]
    assert policies(world)[0] == Pinned.parse(records(world)[0].config.first_model).digest
    published = json.loads(world.store.read("rounds/pvar/rounds.json"))
    assert published == json.loads(result.model_dump_json())


def test_ended_rounds_are_seen_from_the_store_alone(begin: Begin, pipeline: PipelineConfig) -> None:
    world = begin(True, True, True)

    def seen(num_rounds: int) -> Any:
        return ended_rounds(RoundsConfig(rounds=num_rounds, pipeline=pipeline), world.store)  # type: ignore[arg-type]

    assert seen(2) is None
    result = run(RoundsConfig(rounds=2, pipeline=pipeline))
    assert seen(2) == result
    assert seen(3) is None  # one more is to be made
    world.store.write("rounds/pvar/rounds.json", b"of an interrupted flow")
    assert seen(2) is None  # its page is to be published
    assert world.num_runs == 2


def test_a_round_after_a_failed_gate_has_fresh_responses_from_the_same_model(
    begin: Begin, pipeline: PipelineConfig
) -> None:
    world = begin(True, False, False, True)
    result = run(RoundsConfig(rounds=9, pipeline=pipeline))
    assert (result.end.rule, len(result.rounds)) == ("failed_gates", 3)
    second, third = records(world)[1:]
    assert second.config.policy == third.config.policy
    assert [each.config.sample.seed for each in records(world)] == [0, 1, 2]
    assert len(world.versions) == 3


def test_little_pvar_ends_the_rounds(begin: Begin, pipeline: PipelineConfig) -> None:
    begin(True, True, True, means=(0.1, 0.06, 0.04))
    result = run(RoundsConfig(rounds=9, min_pvar_share=0.5, pipeline=pipeline))
    assert (result.end.rule, len(result.rounds)) == ("pvar", 3)


def test_rounds_that_are_killed_anywhere_end_as_if_they_were_not(
    begin: Begin, pipeline: PipelineConfig
) -> None:
    config = RoundsConfig(rounds=2, pipeline=pipeline)
    gates = (True, True)
    undisturbed = begin(*gates)
    run(config)
    expected = as_made(undisturbed)
    num_killed = 0
    while True:
        world = begin(*gates)
        world.store.writes_left = num_killed
        try:
            run(config)
        except KeyboardInterrupt:
            num_killed += 1
            run(config)
            assert as_made(world) == expected
            assert world.champions == undisturbed.champions
        else:
            break
    assert num_killed == 2 * 5  # record, run, record, and two published files of each round


def test_a_round_that_waits_goes_on_after_the_decision(
    begin: Begin, pipeline: PipelineConfig
) -> None:
    world = begin(True, True, asks=True)
    config = RoundsConfig(rounds=2, pipeline=pipeline)
    assert run(config).name == "Waiting"
    waiting = json.loads(world.store.read("rounds/pvar/rounds.json"))["waiting"]
    assert waiting.startswith("round 1 waits for approval of pvar version 1 since 2026-03-10")
    assert (run(config).name, world.num_runs) == ("Waiting", 1)  # nobody has decided
    world.asks = False
    result = run(config)
    assert (len(result.rounds), result.waiting, world.num_runs) == (2, None, 3)


def test_a_round_that_waits_for_answers_is_not_run_again_before_there_are_some(
    begin: Begin, pipeline: PipelineConfig
) -> None:
    world = begin(True, asks=True)
    world.asks_at = "annotate"
    config = RoundsConfig(rounds=1, pipeline=pipeline)
    assert run(config).name == "Waiting"
    assert (run(config).name, world.num_runs) == ("Waiting", 1)
    world.asks = False
    keep_answers(world.store, "x", [])  # type: ignore[arg-type]
    assert (len(run(config).rounds), world.num_runs) == (1, 2)


def test_a_round_that_asks_about_a_withdrawn_prompt_asks_anew(
    begin: Begin, pipeline: PipelineConfig
) -> None:
    world = begin(True, asks=True)
    world.asks_at = "annotate"
    config = RoundsConfig(rounds=1, pipeline=pipeline)
    run(config)
    text = f"Describe {TOPICS[0]}."
    wiring: Any = rounds_flow.connect()
    wiring.source_rows = lambda _: [Row(1, {"prompt": text})]
    name = prompt_id([Message("user", text)])
    withdraw(world.store, [name], reason=None, now=NOW)  # type: ignore[arg-type]
    assert (run(config).name, world.num_runs) == ("Waiting", 2)


def test_a_round_whose_model_was_trained_on_what_was_withdrawn_since_begins_anew(
    begin: Begin, pipeline: PipelineConfig
) -> None:
    """It was promoted and then killed. Its run would make another model now, which would be
    compared with an earlier champion than there is."""
    world = begin(True, True)
    config = RoundsConfig(rounds=1, pipeline=pipeline)
    world.store.writes_left = 2  # of the round's and of the run's record
    with pytest.raises(KeyboardInterrupt):
        run(config)
    (promoted,) = world.champions
    text = f"Describe {TOPICS[0]}."
    wiring: Any = rounds_flow.connect()
    wiring.source_rows = lambda _: [Row(1, {"prompt": text})]
    name = prompt_id([Message("user", text)])
    withdraw(world.store, [name], reason=None, now=NOW)  # type: ignore[arg-type]
    run(config)
    assert policies(world) == [promoted.artifact]


def test_a_first_round_starts_from_the_champion_that_the_same_pipeline_made_before(
    begin: Begin, pipeline: PipelineConfig
) -> None:
    world = begin(True, True)
    wiring = rounds_flow.connect()
    made = pin(pipeline, wiring)
    model = plan_nodes(made)["train"]
    world.store.write(model.keys.recipe, model.recipe.to_json())
    world.versions[model.keys.root] = 1
    world.promote(model.keys.root, 1, made.evaluate.opponent)
    run(RoundsConfig(rounds=1, pipeline=pipeline))
    assert policies(world) == [model.keys.root]
    assert [champion.version for champion in world.champions] == [1, 2]


def test_a_round_that_was_overtaken_begins_anew_from_the_new_champion(
    begin: Begin, pipeline: PipelineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    world = begin(True, asks=True)
    config = RoundsConfig(rounds=1, pipeline=pipeline)
    run(config)
    theirs = RegisteredVersion("pvar", 9, "train/0123456789abcdef", None)
    world.champions.append(theirs)
    world.gates = (True, True)
    world.asks = False
    result = run(config)
    assert policies(world) == [theirs.artifact]
    assert [each.number for each in result.rounds] == [1]
    assert "but the champion is version 9 now" in caplog.text


def test_later_rounds_keep_the_references_of_the_first(
    begin: Begin, pipeline: PipelineConfig, tmp_path: Path
) -> None:
    world = begin(True, True)
    run(RoundsConfig(rounds=1, pipeline=pipeline))
    write_prompts(tmp_path / "prompts.jsonl", ["other prompts"])
    run(RoundsConfig(rounds=2, pipeline=pipeline))
    first, second = records(world)
    assert first.config.ingest.source == second.config.ingest.source


def test_each_batch_is_pinned_when_its_round_begins(
    begin: Begin, pipeline: PipelineConfig, tmp_path: Path
) -> None:
    world = begin(True, True)
    batches = [str(write_prompts(tmp_path / f"{name}.jsonl", [name])) for name in "ab"]
    exam = (str(write_prompts(tmp_path / "exam.jsonl")),)
    with_exam = pipeline.model_copy(
        update={"evaluate": pipeline.evaluate.model_copy(update={"prompts": exam})}
    )
    result = run(RoundsConfig(rounds=2, batches=tuple(batches), pipeline=with_exam))
    assert [each.source for each in result.rounds] == batches
    first, second = (record.config for record in records(world))
    assert first.evaluate.prompts == second.evaluate.prompts


def test_other_settings_are_refused_and_other_bounds_and_machines_are_not(
    begin: Begin, pipeline: PipelineConfig
) -> None:
    world = begin(True, True, True)
    run(RoundsConfig(rounds=1, pipeline=pipeline))
    other = pipeline.model_copy(
        update={"train": pipeline.train.model_copy(update={"learning_rate": 0.5})}
    )
    with pytest.raises(ConfigError, match=r"began with train.learning_rate=5e-07, which is 0\.5"):
        run(RoundsConfig(rounds=2, pipeline=other))
    slower = pipeline.runtime.model_copy(update={"sequences_per_batch": 1})
    moved = pipeline.model_copy(update={"runtime": slower})
    assert len(run(RoundsConfig(rounds=2, max_failed_gates=5, pipeline=moved)).rounds) == 2
    assert world.num_runs == 2
    assert len(run(RoundsConfig(rounds=1, name="own", pipeline=other)).rounds) == 1
