"""`pvar benchmark`: any models on the benchmarks of a preset, from the command to the table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import cli
from flows.exit_codes import ERROR, WRONG_CALL
from flows.garbage_collection import plan_sweep
from flows.wiring import connect
from pvar.artifacts import Manifest
from tasks.engine.artifact import read_document
from tests.benchmark_files import (
    CATEGORIES,
    DATA_SETS,
    LOST,
    WON,
    alpaca_eval_files,
    arena_answer,
    arena_hard_files,
    games,
    odds,
    write,
)
from tests.services.chat_server import Asked, ChatServer, serving
from tests.services.loopback_http import Sent
from tests.services.prefect_server import PrefectServer
from tests.workflow import fake_settings, write_prompts

pytestmark = [
    pytest.mark.slow,
    # Raised inside libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ALPACA_EVAL = {
    *("benchmark", "kind", "model", "judge", "judge_epoch", "usd", "files", "lc_comparable"),
    *("win_rate", "standard_error", "discrete_win_rate"),
    *("length_controlled_winrate", "lc_standard_error"),
    *("clustered_ci_lower", "clustered_ci_upper"),
    *("avg_length", "num_questions", "num_judged", "coverage"),
}
ARENA_HARD = {
    *("benchmark", "kind", "model", "judge", "judge_epoch", "usd", "files"),
    *("score", "ci_lower", "ci_upper", "clustered_ci_lower", "clustered_ci_upper"),
    *("style_controlled_score", "style_ci_lower", "style_ci_upper"),
    *("avg_length", "num_questions", "num_judged", "coverage"),
}


def judge(asked: Asked) -> Sent:
    """One server for both judges: Arena-Hard's has a system prompt."""
    return games(asked) if asked.body["messages"][0]["role"] == "system" else odds(asked)


@pytest.fixture
def judging(
    server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ChatServer]:
    """A home of the test's own, Prefect's server, and a judge."""
    with serving(judge) as chat:
        for name, value in {
            "PVAR_HOME": str(tmp_path / "home"),
            "PVAR_JUDGE_BASE_URL": chat.base_url,
            "PREFECT_API_URL": server.api,
            "COLUMNS": "250",
        }.items():
            monkeypatch.setenv(name, value)
        yield chat


def preset(folder: Path) -> str:
    settings = fake_settings(
        write_prompts(folder / "prompts.jsonl"),
        benchmarks=[
            alpaca_eval_files(folder),
            arena_hard_files(folder),
            alpaca_eval_files(folder, judge={"kind": "fake"}, name="faked")
            | {"answers": {"engine": "fake", "max_new_tokens": 12}},
        ],
        **{"runtime.judge_anchors": 0},  # calls are counted
    )
    path = folder / "preset.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def pvar(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["benchmark", *arguments])
    assert ended.value.code == 0


def test_every_model_has_a_row_per_benchmark_and_nothing_is_paid_for_twice(
    judging: ChatServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = preset(tmp_path)
    # The same file cannot answer both benchmarks; a column that AlpacaEval ignores names neither.
    rows = [
        {"instruction": q, "output": f"[{0.9 - n / 10}]", "generator": "made-elsewhere"}
        for n, q in enumerate(DATA_SETS)
    ]
    outputs = f"outputs:{write(tmp_path / 'answers.jsonl', rows)}"
    alpaca_eval = ("--preset", path, "--benchmark", "alpaca_eval", "--model", outputs)

    def printed(*arguments: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        pvar(*arguments, "--json")
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    (row,) = printed(*alpaca_eval)
    assert set(row) == ALPACA_EVAL
    assert (row["benchmark"], row["kind"], row["model"], row["judge"]) == (
        *("alpaca_eval", "alpaca_eval", "made-elsewhere", "judge-model"),
    )
    assert row["win_rate"] == pytest.approx(70.0)  # 90, 80, 70, 60, 50
    assert row["discrete_win_rate"] == pytest.approx(90.0)  # four wins and a draw
    assert row["standard_error"] == pytest.approx(50**0.5)  # spread √250, five questions
    assert row["length_controlled_winrate"] is None
    assert (row["num_questions"], row["num_judged"], row["coverage"]) == (5, 5, 1.0)
    assert [Path(each).name for each in row["files"]] == ["annotations.json", "model_outputs.json"]
    assert all(Path(each).is_file() for each in row["files"])
    assert len(judging.asked) == 5

    (again,) = printed(*alpaca_eval, "--out", str(tmp_path / "out"))
    assert len(judging.asked) == 5
    assert {key: value for key, value in again.items() if key != "files"} == {
        key: value for key, value in row.items() if key != "files"
    }
    assert all(Path(each).is_relative_to(tmp_path / "out") for each in again["files"])
    assert all(Path(each).is_file() for each in again["files"])

    with monkeypatch.context() as patch:  # without a server, nothing is started: its last run
        patch.delenv("PREFECT_API_URL")
        (complete,) = printed(*alpaca_eval)
    assert complete["files"] != row["files"]  # the run of `again` is newer
    assert {**complete, "files": []} == {**row, "files": []}
    runs = [info.key for info in connect().store.list("benchmarks/")]
    assert len(runs) == 2

    answers = [arena_answer(q, "made-elsewhere", WON if q == "h1" else LOST) for q in CATEGORIES]
    arena = f"outputs:{write(tmp_path / 'arena.jsonl', answers)}"
    (row,) = printed("--preset", path, "--benchmark", "arena_hard", "--model", arena)
    assert set(row) == ARENA_HARD
    assert row["score"] == pytest.approx(100 * 5 / 8)
    assert row["ci_lower"] <= row["score"] <= row["ci_upper"]
    assert len(row["files"]) == 2

    # Models that answer themselves: the champion is the starting policy here.
    capsys.readouterr()
    pvar(
        "--preset",
        path,
        "--benchmark",
        "faked",
        "--model",
        "champion",
        "--model",
        "bundled:smollm2-135m-instruct",
    )
    shown = capsys.readouterr().out
    assert shown.count("faked") == 2
    assert "champion" in shown
    assert "smollm2-135m-instruct-2" in shown

    wiring = connect()
    store = wiring.store
    records = [json.loads(store.read(info.key)) for info in store.list("benchmarks/")]
    assert len(records) == 4
    named = {node["artifact"] for record in records for node in record["nodes"]}
    made = {
        key.removesuffix("/manifest.json")
        for key in (info.key for info in store.list(""))
        if key.endswith("/manifest.json")
    }
    assert made == named
    assert plan_sweep(wiring, None).plan.artifacts == ()
    # Both models are the same one: two artifacts of scores, one of answers and one of judgments.
    stages = [root.partition("/")[0] for root in named]
    assert {stage: stages.count(stage) for stage in stages} == {
        "questions": 2, "outputs": 2, "sample": 1, "judge": 3, "benchmark": 4,
    }  # fmt: skip
    for root in named:
        assert read_document(store, f"{root}/manifest.json", Manifest) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--benchmark", "mmlu"), "there is no benchmark 'mmlu'; the configuration has alpaca_ev"),
        (("--set", "benchmarks=[]"), "the configuration has no benchmarks; add some under `ben"),
        (("--model", "./nothing"), "nothing: no such folder"),
        (("--model", "outputs:./nothing.json"), "nothing.json: no such file; check the path"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_made(
    judging: ChatServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["benchmark", "--preset", preset(tmp_path), *arguments])
    assert ended.value.code in (ERROR, WRONG_CALL)
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert list(connect().store.list("")) == []
    assert judging.asked == []
