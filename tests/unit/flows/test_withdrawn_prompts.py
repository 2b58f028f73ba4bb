"""Withdrawn prompts: later runs do without them, versions are named, and the store forgets them."""

import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.commands.forget import forget
from flows.commands.lineage import lineage
from flows.erasing import carry_out_erasure, plan_erasure
from flows.pinning import pin
from flows.promotions import _refuse_withdrawn
from flows.retrain_fresh import with_fresh_exam
from flows.run_record import NodeRecord, RunRecord, save_run
from flows.run_report import write_report
from flows.withdrawn_prompts import read_ids
from flows.withdrawn_versions import versions_trained_on
from infra.row_files import read_rows, write_rows
from infra.store import open_store
from pvar.artifacts import Recipe, ShardSpec
from pvar.config import PipelineConfig
from pvar.digest import prompt_id
from pvar.errors import InputError, LeaseError, PromotionError, StoreError
from pvar.ports import RegisteredVersion, Store
from pvar.records import Comparison, Message, Pair, Prompt, Response, Row
from pvar.retrain_decision import Batch
from pvar.row_counts import RowCounts
from pvar.withdrawal import ids_of_row
from tasks.engine.artifact import ArtifactKeys, open_artifact
from tasks.engine.lease import hold
from tasks.engine.stage import Job, Work, run_stage, verified_manifest
from tasks.engine.tables import TrainStep, write_table
from tasks.retraining.batches import RowFiles, add_batch, read_batches
from tasks.retraining.erasures import read_erasures
from tasks.retraining.exams import ExamParts, exam_of, freeze_exam, propose_exam
from tasks.retraining.incoming_files import look
from tasks.retraining.withdrawals import read_withdrawals, withdraw
from tasks.stages.ingest import PROMPTS
from tasks.stages.pair import PAIRS
from tasks.stages.sample import RESPONSES
from tasks.stages.train import STEPS, TRAIN
from tasks.stages.verdict_cache import VerdictCache
from tests.artifacts import put_artifact
from tests.services.registry import empty_database
from tests.workflow import Workflow, fake_settings, start_workflow

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
JUDGE = {"kind": "metered"}
MADE = (
    "ingest", "sample", "score-vader", "select", "pair", "train", "answers-opponent",
    "answers-challenger", "evaluate",
)  # fmt: skip


def make_all(workflow: Workflow) -> None:
    """Every stage up to the evaluation. In place of a training, a model that no fake loads."""

    @contextmanager
    def pretend(_: Job[Any]) -> Iterator[Work]:
        def work(_: ShardSpec, folder: Path) -> RowCounts:
            (folder / "model").mkdir()
            (folder / "model" / "config.json").write_text("{}")
            write_table(folder / STEPS, [], TrainStep)
            return RowCounts()

        yield work

    whole = (ShardSpec(index=0, start=0, stop=0),)
    stage = replace(
        TRAIN, plan=lambda _: whole, open_worker=pretend, summarise=lambda *_: {},
        number_format=lambda _: None,
    )  # fmt: skip
    for name in MADE:
        if name == "train":
            run_stage(stage, workflow.nodes[name].recipe, workflow.job(name))
        else:
            workflow.make(name)


def contents(store: Store, prefix: str = "") -> dict[str, str]:
    """Every object of the store as text, unpacked."""
    found = {}
    for info in store.list(prefix):
        data = store.read(info.key)
        if info.key.endswith(".gz"):
            data = gzip.decompress(data)
        if info.key.endswith(".parquet"):
            data = repr(pq.read_table(pa.BufferReader(data)).to_pylist()).encode()
        found[info.key] = data.decode(errors="replace")
    return found


def prompts_of(workflow: Workflow) -> dict[str, Prompt]:
    return {row.prompt_id: row for row in workflow.artifact("ingest").rows(PROMPTS, Prompt)}


def texts_of(workflow: Workflow, name: str) -> set[str]:
    """The prompt's text, and its answers that no other prompt has."""
    answers = [
        row
        for node in ("sample", "answers-opponent", "answers-challenger")
        for row in workflow.artifact(node).rows(RESPONSES, Response)
    ]
    others = {row.text for row in answers if row.prompt_id != name}
    own = {row.text for row in answers if row.prompt_id == name} - others
    assert own
    return own | {prompts_of(workflow)[name].messages[0].content}


def report(workflow: Workflow) -> RunRecord:
    """The record and the report of a run."""
    tracking, store = workflow.wiring.tracking, workflow.store
    nodes = tuple(
        NodeRecord(name=name, artifact=workflow.nodes[name].keys.root, state="made")
        for name in MADE
    )
    record = RunRecord(
        run="20260310-1", started_at=NOW, preset=None, config=workflow.config,
        mlflow_run=tracking.start_run("run", {}), mlflow_experiment=tracking.experiment,
        nodes=nodes,
    )  # fmt: skip
    save_run(store, record)
    path = workflow.wiring.settings.home / "report.html"
    write_report(record, workflow.wiring, path)
    store.upload(path, f"runs/{record.run}.html")
    return record


@pytest.fixture
def made(tmp_path: Path) -> Workflow:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty_database(), home / "mlflow.db")
    workflow = start_workflow(home)
    make_all(workflow)
    return workflow


def test_a_run_after_a_withdrawal_does_without_the_prompt_and_nothing_else_changes(
    made: Workflow,
) -> None:
    wiring = made.wiring
    settings = PipelineConfig.model_validate(fake_settings(wiring.settings.home / "prompts.jsonl"))
    withdraw(made.store, ["f" * 16], reason=None, now=NOW)
    assert pin(settings, wiring) == made.config  # this source does not have it
    trained = made.artifact("pair").rows(PAIRS, Pair)[0].prompt_id
    withdraw(made.store, [trained], reason="asked for", now=NOW)
    after = Workflow(pin(settings, wiring), wiring)
    assert after.config.ingest.withdrawn == (trained,)
    assert after.nodes["ingest"].keys != made.nodes["ingest"].keys
    make_all(after)
    assert prompts_of(after).keys() == prompts_of(made).keys() - {trained}
    assert after.artifact("ingest").manifest.row_counts.rejected == {"withdrawn": 1}
    assert trained not in {row.prompt_id for row in after.artifact("pair").rows(PAIRS, Pair)}
    # Pinned before, and used by a later retraining: what is withdrawn stays so.
    assert pin(after.config, wiring) == after.config
    assert pin(made.config, wiring) == after.config


def test_an_exam_leaves_out_what_is_withdrawn_and_the_training_data_stay(tmp_path: Path) -> None:
    exam = tmp_path / "exam.jsonl"
    names = ("sea", "sky")
    exam.write_text("".join(json.dumps({"prompt": f"Name a {name}."}) + "\n" for name in names))
    workflow = start_workflow(tmp_path / "home", **{"evaluate.prompts": [str(exam)]})
    withdraw(workflow.store, read_ids(exam), reason=None, now=NOW)
    sea = prompt_id([Message("user", "Name a sea.")])
    withdraw(workflow.store, [sea], reason=None, now=NOW)
    assert len(read_withdrawals(workflow.store)) == 1  # it was withdrawn before
    after = Workflow(pin(workflow.config, workflow.wiring), workflow.wiring)
    assert after.nodes["ingest"].keys == workflow.nodes["ingest"].keys
    assert after.nodes["exam"].keys != workflow.nodes["exam"].keys
    with pytest.raises(InputError, match="'withdrawn': 2"):
        after.make("exam")


def test_no_byte_of_a_withdrawn_prompt_is_left_and_all_stays_complete(
    made: Workflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, wiring = made.store, made.wiring
    record = report(made)
    train = made.nodes["train"].keys
    version = wiring.registry.register(
        "pvar", made.artifact("train").folder("model"), train.root, {}
    )
    by_id = prompts_of(made)
    trained = made.artifact("pair").rows(PAIRS, Pair)[0].prompt_id
    asked = next(name for name, row in by_id.items() if row.split == "eval")
    gone = texts_of(made, trained) | texts_of(made, asked)
    cache = VerdictCache(store)
    for name in (trained, asked, next(each for each in by_id if each not in (trained, asked))):
        own = [
            row.text
            for node in ("sample", "answers-opponent")
            for row in made.artifact(node).rows(RESPONSES, Response)
            if row.prompt_id == name
        ]
        shown = Comparison(name, by_id[name].messages, own[0], own[-1])
        cache.keep(JUDGE, shown, 0.5, f"about {by_id[name].messages[0].content}")
    withdraw(store, [trained, asked], reason=None, now=NOW)
    before = {name: made.artifact(name).manifest for name in MADE}

    assert plan_erasure(wiring, NOW).erasure.runs == (record.run,)
    assert any(text in each for each in contents(store).values() for text in gone)
    erasure = carry_out_erasure(wiring, NOW)
    assert erasure is not None
    assert (erasure.num_verdicts, len(list(store.list("verdicts/")))) == (2, 1)
    left = {key for key, each in contents(store).items() for text in gone if text in each}
    assert left == set()
    assert erasure.pairs == {made.nodes["pair"].keys.root: (trained,)}
    assert erasure.kept == ()
    assert carry_out_erasure(wiring, NOW) is None

    for name in MADE:
        artifact, job = made.artifact(name), made.job(name)
        assert verified_manifest(store, artifact.keys, job.inputs) == artifact.manifest
        for shard in artifact.manifest.shards:
            for file in shard.files:
                artifact.path(shard, file.name)  # compares SHA-256
        assert artifact.manifest.summary == before[name].summary
    assert made.make("evaluate").shards_made == 0
    assert store.read(f"runs/{record.run}.html")

    for name, value in {
        "PVAR_HOME": str(wiring.settings.home), "PVAR_STORE_URI": store.uri,
        "PVAR_MLFLOW_TRACKING_URI": wiring.settings.mlflow_tracking_uri,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    lineage(withdrawn=True, as_json=True)
    (named,) = json.loads(capsys.readouterr().out)
    assert (named["version"], named["prompt_ids"]) == (
        f"models:/pvar/{version.version}", [trained],
    )  # fmt: skip


def test_a_version_that_began_from_such_a_model_is_named(file_store: Store, tmp_path: Path) -> None:
    def train(*ids: str, policy: str) -> ArtifactKeys:
        rows = [Pair(name, (), "yes", "no", None, None) for name in ids]
        write_table(tmp_path / "table", rows, Pair)
        files = {PAIRS: (tmp_path / "table").read_bytes()}
        pairs = put_artifact(file_store, "pair", files=files, config={"for": policy})
        return put_artifact(file_store, "train", config={"policy": policy}, inputs={"pairs": pairs})

    first = train("a", "b", policy="base-1")
    second = train("c", "d", policy=first.root)
    other = train("d", policy="base-2")
    lost = put_artifact(
        file_store,
        "train",
        config={"policy": "base-3"},
        inputs={"pairs": ArtifactKeys("pair", "0")},
    )
    roots = (first.root, second.root, other.root, lost.root, None)
    facts = [
        SimpleNamespace(version=SimpleNamespace(model_name="m", version=number, artifact=root))
        for number, root in enumerate(roots, start=1)
    ]
    wiring: Any = SimpleNamespace(
        registry=SimpleNamespace(versions=lambda: facts),
        store=file_store,
        settings=SimpleNamespace(home=tmp_path / "home"),
    )
    named = [each.model_dump() for each in versions_trained_on({"a", "c", "x"}, wiring, {})]
    assert [tuple(each.values()) for each in named] == [
        ("models:/m/1", ("a",), (), ()),
        ("models:/m/2", ("c",), ("a",), ()),
        ("models:/m/4", (), (), (lost.root,)),
    ]
    # A reward model reads the labels of prompts, and not the prompts without.
    prompts = [
        Prompt("a", (), "train", "x", "yes", "no"),
        Prompt("c", (), "train", "x"),
    ]
    write_table(tmp_path / "prompts", prompts, Prompt)
    labels = put_artifact(
        file_store, "ingest", files={PROMPTS: (tmp_path / "prompts").read_bytes()}
    )
    facts[0].version.artifact = put_artifact(file_store, "reward", inputs={"prompts": labels}).root
    reward = versions_trained_on({"a", "c", "x"}, wiring, {})[0]
    assert (reward.version, reward.prompt_ids) == ("models:/m/1", ("a",))
    # A person may not approve it. What only its first model was trained on stops nobody.
    withdraw(file_store, ["a", "x"], reason=None, now=datetime(2026, 3, 1, tzinfo=UTC))
    with pytest.raises(PromotionError, match=r"m version 1 was trained on 1 prompts .*\(a, …\)"):
        _refuse_withdrawn(RegisteredVersion("m", 1, None, None), wiring)
    _refuse_withdrawn(RegisteredVersion("m", 2, None, None), wiring)
    # What was erased is known from its record, whether the artifact is there or not.
    erased = {"pair/0": {"x", "y"}, f"pair/{the_pairs(file_store, other)}": {"x"}}
    third, fourth = versions_trained_on({"a", "c", "x"}, wiring, erased)[2:]
    assert (third.version, third.prompt_ids) == ("models:/m/3", ("x",))
    assert (fourth.version, fourth.prompt_ids, fourth.unknown) == ("models:/m/4", ("x",), ())


def test_the_fresh_exam_is_left_out_when_its_last_pair_is_withdrawn(
    file_store: Store, tmp_path: Path
) -> None:
    """Else its run would fail, and again, until the batch is set aside."""
    row = {"prompt": "Name a river.", "chosen": "Rhine", "rejected": "?"}
    write_rows(tmp_path / "fresh.jsonl.gz", [row])
    file_store.upload(tmp_path / "fresh.jsonl.gz", "retrain/data/fresh.jsonl.gz")
    now = datetime(2026, 3, 1, tzinfo=UTC)
    batch = Batch(
        number=1, created_at=now, data="retrain/data/a", files=(), duplicates=(), reasons=(),
        fresh="retrain/data/fresh.jsonl.gz",
    )  # fmt: skip
    config = PipelineConfig()
    withdraw(file_store, ["another"], reason=None, now=now)
    assert len(with_fresh_exam(config, batch, file_store).benchmarks) == 1
    withdraw(file_store, [prompt_id([Message("user", "Name a river.")])], reason=None, now=now)
    assert with_fresh_exam(config, batch, file_store) == config


def the_pairs(store: Store, train: ArtifactKeys) -> str:
    return Recipe.model_validate_json(store.read(train.recipe)).inputs["pairs"]


RIVER, LAKE = ({"prompt": f"Name a {each} that is in no other text."} for each in ("river", "lake"))
ROWS = (RIVER, LAKE)
IDS = WITHDRAWN, KEPT = tuple(prompt_id([Message("user", row["prompt"])]) for row in ROWS)


@dataclass
class DyingStore:
    """A store whose process is killed before a write."""

    store: Store
    left: int

    def __getattr__(self, name: str) -> Any:
        if name in ("write", "create", "upload", "delete"):
            if self.left == 0:
                raise StoreError("killed")
            self.left -= 1
        return getattr(self.store, name)


def fill(store: Store, scratch: Path) -> None:
    """A batch, an exam, a complete and an incomplete artifact with both prompts."""
    scratch.mkdir()
    write = RowFiles(read_rows, write_rows)
    lines = "".join(json.dumps(row) + "\n" for row in (RIVER, LAKE))
    store.write("incoming/a.jsonl", lines.encode())
    good = look(store, "incoming", read_rows, known=(), scratch=scratch).good
    add_batch(store, good, [], reasons=(), now=NOW, row_files=write, scratch=scratch)
    prompts = [
        Prompt(name, (Message("user", row["prompt"]),), "eval", "x", "yes", "no")
        for name, row in ((WITHDRAWN, RIVER), (KEPT, LAKE))
    ]
    exam = propose_exam(
        store,
        1,
        ExamParts(prompts, []),
        batch=1,
        now=NOW,
        source_field=None,
        write=write_rows,
        scratch=scratch,
    )
    freeze_exam(store, exam, NOW)
    write_table(scratch / "table", prompts, Prompt)
    files = {PROMPTS: (scratch / "table").read_bytes()}
    put_artifact(store, "ingest", files=files)
    put_artifact(store, "sample", files=files, is_complete=False)
    VerdictCache(store).keep(
        JUDGE, Comparison(WITHDRAWN, prompts[0].messages, "yes", "no"), 0.5, "river"
    )
    write_rows(scratch / "labels.jsonl.gz", (RIVER, LAKE))
    store.upload(scratch / "labels.jsonl.gz", "retrain/labels/x.jsonl.gz")
    queue = [
        {"prompt_id": name, "first": row["prompt"]} for name, row in zip(IDS, ROWS, strict=True)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in queue)
    store.write("annotations/x/queue.jsonl", lines.encode())
    withdraw(store, [WITHDRAWN], reason=None, now=NOW)


def test_an_erasure_that_is_killed_at_any_write_is_finished_by_the_next(tmp_path: Path) -> None:
    filled = open_store((tmp_path / "filled").as_uri())
    fill(filled, tmp_path / "scratch")
    settings = SimpleNamespace(home=tmp_path / "home")
    for left in range(1, 1000):
        shutil.copytree(tmp_path / "filled", tmp_path / f"{left}")
        store = open_store((tmp_path / f"{left}").as_uri())
        dying: Any = SimpleNamespace(store=DyingStore(store, left), settings=settings)
        with suppress(StoreError):
            carry_out_erasure(dying, NOW)
        for key in [info.key for info in store.list("retrain/leases/")]:
            store.delete(key)  # its holder is dead
        living: Any = SimpleNamespace(store=store, settings=settings)
        carry_out_erasure(living, NOW)
        check_erased(store, tmp_path / f"cache-{left}")
        if dying.store.left > 0:
            break
    assert left > 15


@pytest.mark.parametrize("left", [7, 1000])
def test_an_erasure_in_s3_is_finished_after_a_kill(
    s3_store: Store, tmp_path: Path, left: int
) -> None:
    fill(s3_store, tmp_path / "scratch")
    settings = SimpleNamespace(home=tmp_path / "home")
    dying: Any = SimpleNamespace(store=DyingStore(s3_store, left), settings=settings)
    with suppress(StoreError):
        carry_out_erasure(dying, NOW)
    assert (dying.store.left > 0) == (left == 1000)
    for key in [info.key for info in s3_store.list("retrain/leases/")]:
        s3_store.delete(key)  # its holder is dead
    carry_out_erasure(SimpleNamespace(store=s3_store, settings=settings), NOW)  # type: ignore[arg-type]
    check_erased(s3_store, tmp_path / "cache")


def check_erased(store: Store, cache: Path) -> None:
    holding = {key for key, text in contents(store).items() if RIVER["prompt"] in text}
    assert holding == {"incoming/a.jsonl"}  # the user's own
    (erasure,) = read_erasures(store)
    assert erasure.finished_at is not None
    assert erasure.kept == ("incoming/a.jsonl",)
    assert len(erasure.tables) == len(erasure.deleted) == erasure.num_verdicts == 1
    # Of the batch, the exam, the earlier labels of a reward model, and the queue.
    assert list(erasure.objects.values()) == [1, 1, 1, 1]
    assert not list(store.list("retrain/labels/"))
    (line,) = store.read("annotations/x/queue.jsonl").splitlines()
    assert json.loads(line)["prompt_id"] == KEPT
    (batch,) = read_batches(store)
    exam = exam_of(store, 1)
    assert exam is not None
    assert (batch.num_pairs, exam.num_prompts) == (2, 1)
    for data in (batch.data, exam.data):
        path = cache / Path(data).name
        cache.mkdir(exist_ok=True)
        store.download(data, path)
        _, row = read_rows(path)
        assert isinstance(row, Row)
        assert ids_of_row(row.fields) == {KEPT}
    assert len(list(store.list("retrain/data/"))) == 1
    assert not list(store.list("verdicts/")) + list(store.list("sample/"))
    digest = next(iter(store.list("ingest/"))).key.split("/")[1]
    (prompt,) = open_artifact(store, "ingest", digest, cache).rows(PROMPTS, Prompt)
    assert prompt.prompt_id == KEPT


def test_nothing_is_erased_while_a_stage_or_a_retraining_works(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    wiring: Any = SimpleNamespace(store=store, settings=SimpleNamespace(home=tmp_path / "home"))
    withdraw(store, [WITHDRAWN], reason=None, now=NOW)
    sample = f"sample/{'a' * 16}"
    for root, lease in ((sample, f"{sample}/leases/00000"), ("rounds/x", "rounds/x/leases")):
        with hold(store, lease), pytest.raises(LeaseError, match=f"works on {root} "):
            carry_out_erasure(wiring, NOW)
    with hold(store, "retrain/leases"), pytest.raises(LeaseError):
        plan_erasure(wiring, NOW)
    assert plan_erasure(wiring, NOW).is_empty


def test_the_command_withdraws_lists_and_erases_only_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    fill(store, tmp_path / "scratch")
    for name, value in {"PVAR_HOME": str(tmp_path / "home"), "PVAR_STORE_URI": store.uri}.items():
        monkeypatch.setenv(name, value)
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{WITHDRAWN}\n{KEPT}\n{'f' * 16}\n")
    forget(ids=ids, reason="asked for")
    said = " ".join(capsys.readouterr().out.split())
    assert "2 prompts are withdrawn; 1 were before. 2 are in this store, 1 are not" in said
    forget()
    assert "asked for" in capsys.readouterr().out
    before = contents(store)
    forget(erase=True)
    assert contents(store) == before
    said = capsys.readouterr().out
    assert "is removed with --yes" in said
    assert "holds or quotes such a row: incoming/a.jsonl" in said
    forget(erase=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["withdrawn"], found["erasure"]["number"]) == (None, 1)
    assert [each["reason"] for each in found["withdrawals"]][-1] == "asked for"
    assert contents(store) == before
    forget(erase=True, yes=True)
    assert "was removed; see erasures/000001.json" in capsys.readouterr().out
    forget(erase=True, yes=True)
    assert "holds no rows of withdrawn prompts" in capsys.readouterr().out
    with pytest.raises(InputError, match="--yes is for --erase"):
        forget(yes=True)
    ids.write_text("\n")
    with pytest.raises(InputError, match="names no prompt"):
        forget(ids=ids)
