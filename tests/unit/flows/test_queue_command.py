"""`pvar queue`: from rewards to tasks, and from people's answers to rows of a batch."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.commands.queue import export, import_answers, read_queue
from flows.run_record import NodeRecord, RunRecord, save_run
from infra.row_files import read_rows, write_rows
from pvar.errors import ConfigError, InputError
from pvar.incoming_rows import batch_rows, inspect_rows, parse_row
from pvar.records import Response, Row
from tasks.engine.tables import PromptVariance
from tasks.stages.sample import RESPONSES
from tasks.stages.select import VARIANCE
from tests.workflow import start_workflow

# By PVar the order is wide, narrow, tied; each has three responses, so that there is an error.
POOL: list[dict[str, Any]] = [
    {"prompt": f"Say {name}.", "responses": [f"{name} {n}" for n in range(3)], "rewards": rewards}
    | {"source": source}
    for name, rewards, source in (
        ("tied", [1, 1, 1], "code"),
        ("wide", [-5, 0, 5], "web"),
        ("narrow", [-1, 0, 1], "web"),
    )
]


@pytest.fixture
def pool(tmp_path: Path) -> str:
    write_rows(tmp_path / "pool.jsonl", POOL)
    return str(tmp_path / "pool.jsonl")


def prompts_of(folder: Path) -> list[str]:
    return [pair.messages[0].content for pair in read_queue(folder)]


def exported(folder: Path, choices: dict[str, Any]) -> Path:
    """Label Studio's export of the queue, with each prompt's choices by annotator."""
    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks):
        task |= {"id": number, "annotations": []}
        for annotator, choice in choices.get(task["data"]["prompt"], {}).items():
            value = {"from_name": "preference", "type": "choices", "value": {"choices": [choice]}}
            task["annotations"].append(
                {
                    "completed_by": {"id": 1, "email": annotator},
                    "was_cancelled": choice is None,
                    "created_at": "2026-11-26T12:00:00Z",
                    "result": [] if choice is None else [value],
                }
            )
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path


def test_answers_come_back_as_labelled_rows_of_a_batch(
    pool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, labels, votes = tmp_path / "q", tmp_path / "labels.jsonl", tmp_path / "votes.jsonl"
    export(pool, out=folder, budget=3)
    assert prompts_of(folder) == ["Say wide.", "Say narrow.", "Say tied."]
    answers = exported(
        folder,
        {
            "Say wide.": {"ann": "2", "bob": "2", "eve": "1"},
            "Say narrow.": {"ann": "1", "bob": "2"},
            "Say tied.": {"ann": "tie", "bob": None},
        },
    )
    capsys.readouterr()
    import_answers(answers, queue=folder, out=labels, votes=votes, as_json=True)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["pairs"], summary["labels"], summary["answers"]) == (3, 1, 7)
    assert summary["answers_rejected"] == {"no_majority": 2, "outvoted": 1, "skipped": 1, "tie": 1}
    assert len(list(read_rows(votes))) == 7

    assert inspect_rows(read_rows(labels), "labels.jsonl").refusal is None
    parsed = [parse_row(row, "labels.jsonl", "source") for row in read_rows(labels)]
    batch = batch_rows(each for each in parsed if not isinstance(each, str))
    (prompt,) = batch.prompts
    (pair,) = [each for each in read_queue(folder) if each.messages == prompt.messages]
    assert (prompt.chosen, prompt.rejected) == (pair.answer_2, pair.answer_1)
    assert (prompt.source, batch.num_labelled) == ("web", 1)
    (row,) = read_rows(labels)
    assert isinstance(row, Row)
    assert row.fields["annotator"] == "ann"
    assert row.fields["annotated_at"] == "2026-11-26T12:00:00+00:00"


def test_answers_as_json_lines_give_the_same_rows(pool: str, tmp_path: Path) -> None:
    folder = tmp_path / "q"
    export(pool, out=folder, budget=1)
    (pair,) = read_queue(folder)
    given = {"preferred": 1, "annotator": "ann", "time": "2026-11-26T12:00:00Z"}
    write_rows(tmp_path / "answers.jsonl", [{"id": pair.pair_id, **given}])
    import_answers(tmp_path / "answers.jsonl", queue=folder, out=tmp_path / "lines.jsonl")
    answers = exported(folder, {"Say wide.": {"ann": "1"}})
    import_answers(answers, queue=folder, out=tmp_path / "tasks.jsonl")
    assert (tmp_path / "lines.jsonl").read_bytes() == (tmp_path / "tasks.jsonl").read_bytes()


def test_what_was_asked_is_not_asked_again_and_quotas_are_kept(pool: str, tmp_path: Path) -> None:
    export(pool, out=tmp_path / "q1", budget=2, at_least=("code=0.5",))
    assert prompts_of(tmp_path / "q1") == ["Say wide.", "Say tied."]
    export(pool, out=tmp_path / "q2", budget=2, asked=(tmp_path / "q1",), at_most=("web=1",))
    assert prompts_of(tmp_path / "q2") == ["Say narrow."]
    with pytest.raises(InputError, match=r"no pair to ask about.*asked_before"):
        export(pool, out=tmp_path / "q3", budget=2, asked=(tmp_path / "q1", tmp_path / "q2"))


def test_a_file_may_have_rewards_of_several_models(tmp_path: Path) -> None:
    """The models contradict each other on the second prompt only."""
    one_way, other_way = [1.0, -1.0], [-1.0, 1.0]
    rows = [
        {"prompt": "agreed", "responses": ["x", "y"], "rewards": {"a": one_way, "b": one_way}},
        {"prompt": "disputed", "responses": ["x", "y"], "rewards": {"a": one_way, "b": other_way}},
    ]
    write_rows(tmp_path / "pool.jsonl", rows)
    export(str(tmp_path / "pool.jsonl"), out=tmp_path / "q", budget=1, by="disagreement")
    (pair,) = read_queue(tmp_path / "q")
    assert (pair.messages[0].content, pair.source) == ("disputed", "pool.jsonl")
    assert pair.reward_1 == pair.reward_2 == 0  # means over the models


def test_the_scale_can_follow_the_spread_of_the_rewards(pool: str, tmp_path: Path) -> None:
    """Rewards in other units give the same queue."""
    rows = [{**row, "rewards": [100 * each for each in row["rewards"]]} for row in POOL]
    write_rows(tmp_path / "large.jsonl", rows)
    queues = []
    for number, path in enumerate((pool, str(tmp_path / "large.jsonl"))):
        export(path, out=tmp_path / f"q{number}", budget=3, scale="spread")
        queues.append(read_queue(tmp_path / f"q{number}"))
    for here, there in zip(*queues, strict=True):
        assert here.pair_id == there.pair_id
        assert here.value == pytest.approx(there.value)


def test_repeated_and_empty_responses_are_never_shown(tmp_path: Path) -> None:
    row = {"prompt": "p", "responses": ["same", " same ", "", "other"], "rewards": [9, 9, -9, 0]}
    write_rows(tmp_path / "pool.jsonl", [row])
    export(str(tmp_path / "pool.jsonl"), out=tmp_path / "q", budget=1, by="pvar")
    (pair,) = read_queue(tmp_path / "q")
    assert {pair.answer_1, pair.answer_2} == {"same", "other"}


def test_a_run_is_asked_about_by_its_own_rewards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = start_workflow(tmp_path)
    flow.make("ingest", "sample", "score-vader", "select")
    record = RunRecord(
        run="r1",
        started_at=datetime(2026, 11, 26, tzinfo=UTC),
        preset=None,
        config=flow.config,
        mlflow_run="",
        mlflow_experiment="",
        nodes=(NodeRecord(name="select", artifact="select/x", state="made"),),
    )
    save_run(flow.store, record)
    monkeypatch.setenv("PVAR_HOME", str(flow.wiring.settings.home))
    export("r1", out=tmp_path / "q", budget=3, by="pvar")
    pairs = read_queue(tmp_path / "q")
    rows = flow.artifact("select").rows(VARIANCE, PromptVariance)
    best = sorted(rows, key=lambda row: (-(row.pvar or 0), row.prompt_id))[:3]
    assert [(pair.prompt_id, pair.value) for pair in pairs] == [
        (row.prompt_id, row.pvar) for row in best
    ]
    responses = flow.artifact("sample").rows(RESPONSES, Response)
    for pair in pairs:
        texts = {each.text for each in responses if each.prompt_id == pair.prompt_id}
        assert {pair.answer_1, pair.answer_2} <= texts
        assert pair.reward_1 != pair.reward_2
    with pytest.raises(ConfigError, match=r"--scale is 2.0, but a run has its own"):
        export("r1", out=tmp_path / "q2", budget=3, scale=2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_least": ("code",)}, "--at-least is 'code'; give SOURCE=SHARE"),
        ({"at_most": ("code=2",)}, "--at-most is 'code=2'"),
        ({"at_most": ("code=nan",)}, "--at-most is 'code=nan'"),
        ({"at_most": ("code=0.1", "code=0.2")}, "--at-most names code twice"),
        ({"at_least": ("books=0.1",)}, "names the source 'books', but .* are code, web"),
        ({"by": "entropy"}, "entropy compares reward models, but there is 1"),
        ({"asked": (Path("nowhere"),)}, "nowhere/queue.jsonl: no such file"),
    ],
)
def test_wrong_options_of_an_export_are_one_line(
    options: dict[str, Any], message: str, pool: str, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        export(pool, out=tmp_path / "q", budget=1, **options)
    assert not (tmp_path / "q").exists()


def test_a_queue_is_not_written_over(pool: str, tmp_path: Path) -> None:
    export(pool, out=tmp_path / "q", budget=1)
    with pytest.raises(InputError, match="people may be answering it"):
        export(pool, out=tmp_path / "q", budget=2)
    assert len(read_queue(tmp_path / "q")) == 1


def test_a_file_without_responses_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", [{"prompt": "p"}])
    with pytest.raises(InputError, match=r"no row has a prompt with responses.*row 1: no_answers"):
        export(str(tmp_path / "p.jsonl"), out=tmp_path / "q", budget=1)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([{"id": 1, "choice": "1"}], "no row has annotations .* or preferred"),
        ([{"data": {}, "annotations": []}], "nobody has answered yet"),
        ([{"id": "x", "preferred": 1, "annotator": "a", "time": "2026-01-01"}], "not_in_queue"),
    ],
)
def test_answers_without_a_label_are_one_line(
    answers: list[dict[str, Any]], message: str, pool: str, tmp_path: Path
) -> None:
    export(pool, out=tmp_path / "q", budget=1)
    write_rows(tmp_path / "answers.jsonl", answers)
    with pytest.raises(InputError, match=message):
        import_answers(tmp_path / "answers.jsonl", queue=tmp_path / "q", out=tmp_path / "l.jsonl")
    assert not (tmp_path / "l.jsonl").exists()


def test_a_changed_queue_is_refused(pool: str, tmp_path: Path) -> None:
    export(pool, out=tmp_path / "q", budget=1)
    write_rows(tmp_path / "q" / "queue.jsonl", [{"pair_id": "x"}])
    with pytest.raises(InputError, match="row 1 is not a pair of an annotation queue"):
        import_answers(tmp_path / "q/tasks.json", queue=tmp_path / "q", out=tmp_path / "l.jsonl")


def test_rewards_too_large_for_a_mean_are_left_out_by_name(tmp_path: Path) -> None:
    huge = {"prompt": "Say huge.", "responses": ["a", "b", "c"], "rewards": [1e308, -1e308, 0.0]}
    write_rows(tmp_path / "pool.jsonl", [huge])
    with pytest.raises(InputError, match="row 1: reward_too_large"):
        export(str(tmp_path / "pool.jsonl"), out=tmp_path / "queue", budget=1)
