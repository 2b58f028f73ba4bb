"""`pvar judge-agreement`: a judge against people's preferences, from a file to the figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from flows.exit_codes import ERROR, WRONG_CALL
from infra.judges.fake_judge import FakePairJudge
from pvar.evaluation.judge_agreement import chosen_side
from pvar.prompt_rows import parse_prompt
from pvar.records import Comparison, Prompt
from tests.services.batch_server import serving_batches
from tests.services.chat_server import Asked, says, serving
from tests.services.loopback_http import Sent
from tests.services.processes import NEVER_SECONDS

Pvar = Callable[..., str]
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working folder."""
    for name in ("PVAR_STORE_URI", "PVAR_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PVAR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(rows: Rows) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    Path("preferences.jsonl").write_text(text)
    return "preferences.jsonl"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON that the command prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["judge-agreement", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["judge-agreement", *arguments])
    assert ended.value.code in (ERROR, WRONG_CALL)
    out, err = capsys.readouterr()
    assert out == ""
    return err[err.index("error: ") :]


def rows(num: int) -> Rows:
    return [
        {"prompt": f"Describe day {n}.", "chosen": f"good {n}", "rejected": f"bad {n}"}
        for n in range(num)
    ]


def test_the_lexicon_agrees_where_people_like_the_positive_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # AFINN: good 3, bad −3; "table" and "chair" are not in the lexicon, a tie.
    good, bad = "It was good.", "It was bad."
    file = write(
        [
            {"prompt": "a", "chosen": good, "rejected": bad, "source": "x"},
            {"prompt": "b", "chosen": good, "rejected": bad, "source": "x"},
            {"prompt": "c", "chosen": bad, "rejected": good, "source": "y"},
            {"prompt": "d", "chosen": "table", "rejected": "chair", "source": "y"},
        ]
    )

    found = run(capsys, file, "--set", "evaluate.judge={kind: afinn}")

    assert found["judge"] == "afinn"
    assert (found["num_pairs"], found["num_judged"], found["coverage"]) == (4, 4, 1.0)
    assert found["accuracy"] == pytest.approx(2.5 / 4)
    assert 0 <= found["accuracy_lower"] < 2.5 / 4 < found["accuracy_upper"] <= 1
    assert found["position_consistency"] == 1.0  # a lexicon does not care for the order
    assert {source: each["accuracy"] for source, each in found["by_source"].items()} == {
        "x": 1.0,
        "y": 0.25,
    }
    assert found["by_source"]["y"]["num_pairs"] == 2
    assert found["rows_rejected"] == {}
    assert found["first_problem"] is None


def test_the_fake_judges_verdicts_give_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    preferences = rows(60)
    prompts = [prompt for row in preferences if isinstance(prompt := parse_prompt(row, ""), Prompt)]
    verdicts = FakePairJudge().judge(
        [Comparison(p.prompt_id, p.messages, str(p.rejected), str(p.chosen)) for p in prompts]
    )
    is_right = [verdict.preference is not None and verdict.preference > 0.5 for verdict in verdicts]
    num_right = sum(is_right)
    # Without ties: p_e = a·b + (1 − a)(1 − b), with the shares of A that person and judge name.
    at_a = [chosen_side(prompt.prompt_id) == "A" for prompt in prompts]
    a = sum(at_a) / 60
    b = sum(chosen == right for chosen, right in zip(at_a, is_right, strict=True)) / 60
    by_chance = a * b + (1 - a) * (1 - b)

    found = run(capsys, write(preferences), "--set", "evaluate.judge={kind: fake}")

    assert 0 < num_right < 60
    assert found["accuracy"] == pytest.approx(num_right / 60)
    assert found["kappa"] == pytest.approx((num_right / 60 - by_chance) / (1 - by_chance))
    assert found["position_consistency"] == 1.0
    assert found["by_source"] == {}


def test_missing_verdicts_lower_the_coverage_and_stay_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = "evaluate.judge={kind: fake, missing_share: 0.3}"
    found = run(capsys, write(rows(60)), "--set", fake)

    assert 0 < found["num_judged"] < 60
    assert found["coverage"] == pytest.approx(found["num_judged"] / 60)
    # A pair is missing if one of its two verdicts is.
    assert 60 - found["num_judged"] <= found["missing"]["fake_failure"] <= 2 * 60


def test_rows_without_a_preference_are_left_out_and_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = {"prompt": "a", "chosen": "good", "rejected": "bad"}
    file = write(
        [
            {"prompt": "no answers"},
            good,
            good,
            {"prompt": "b", "chosen": "same", "rejected": "same"},
            {"prompt": "c", "chosen": "one"},
            {"prompt": "a", "chosen": "bad", "rejected": "good"},  # another person
        ]
    )
    with Path(file).open("a") as text:
        text.write("{broken\n")

    found = run(capsys, file)

    assert (found["rows"], found["num_pairs"]) == (7, 2)
    assert found["rows_rejected"] == {
        "no_preference": 1,
        "duplicate": 1,
        "equal_answers": 1,
        "chosen_without_rejected": 1,
        "unreadable_line": 1,
    }
    assert found["first_problem"] == "row 1: no_preference"
    assert found["accuracy"] == 0.5


def test_a_reward_model_can_be_the_judge(capsys: pytest.CaptureFixture[str]) -> None:
    judge = "evaluate.judge={kind: reward_model, reward_model: {kind: vader}}"
    allowed = "evaluate.allow_circular_judge=true"

    found = run(capsys, write(rows(5)), "--set", judge, "--set", allowed)

    assert found["accuracy"] == 1.0
    assert found["accuracy_lower"] == pytest.approx(0.025 ** (1 / 5))


def test_the_table_names_the_figures_the_sources_and_what_was_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write([{**row, "source": f"set{n % 2}"} for n, row in enumerate(rows(4))] + [{"a": 1}])
    with pytest.raises(SystemExit):
        cli.main(["judge-agreement", file])

    out = capsys.readouterr().out
    for shown in ("Accuracy", "Cohen's kappa", "no_prompt: 1", "row 5: no_prompt", "set0", "set1"):
        assert shown in out


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_a_judge_on_a_server_is_paid_once_and_goes_on_after_its_budget(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """People prefer "good"; the judge does so only in pairs 0 and 1, and sees a tie in pair 2."""

    def behaviour(asked: Asked) -> Sent:
        if "day 2" in asked.prompt:
            return says("[[A=B]]")
        is_first = asked.prompt.index("good") < asked.prompt.index("bad")
        is_liked = "day 3" not in asked.prompt
        return says("[[A>B]]" if is_first == is_liked else "[[B>A]]")

    options = [
        write(rows(4)),
        *("--set", "evaluate.judge={kind: arena_hard, model: m}"),
        *("--set", f"runtime.judge_mode={mode}"),
        *("--set", "runtime.judge_poll_seconds=0.001"),
        *("--set", f"runtime.judge_timeout_seconds={NEVER_SECONDS}"),
    ]
    serve = serving(behaviour) if mode == "live" else serving_batches(behaviour)
    with serve as server:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", server.base_url)
        said = refused(capsys, *options, "--max-calls", "1")
        assert "none of 4 pairs has a verdict" in said
        assert "budget_spent" in said
        first = run(capsys, *options, "--max-calls", "3")
        second = run(capsys, *options)
        again = run(capsys, *options)
        num_requests = len(server.asked) if mode == "live" else server.num_requests

    assert (first["num_judged"], first["accuracy"]) == (2, 1.0)
    assert first["missing"] == {"budget_spent": 4}
    assert (second["num_calls"], second["num_cached"]) == (4, 4)
    assert second["accuracy"] == pytest.approx(2.5 / 4)
    assert (again["num_calls"], again["num_cached"]) == (0, 8)
    assert num_requests == 8


# What is wrong with a file


def test_a_file_without_preferences_says_what_is_wanted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refused(capsys, write([{"prompt": "a"}, {"prompt": "b", "rejected": "x"}]))

    assert "none of its 2 rows is a preference" in said
    assert "1 no_preference, 1 rejected_without_chosen" in said
    assert '"chosen"' in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.jsonl", None, "no such file"),
        ("rows.txt", b"text", "unknown file type"),
        ("rows.jsonl", b"", "the file is empty"),
        ("rows.jsonl", b'[{"prompt": "a"', "begins as a JSON array"),
        ("rows.parquet", b"not one", "not a valid Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        Path(name).write_bytes(content)

    said = refused(capsys, name)

    assert name in said
    assert message in said


def test_a_judge_without_any_verdict_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, write(rows(3)), "--set", "evaluate.judge={kind: fake, missing_share: 1}")

    assert "none of 3 pairs has a verdict in both orders (missing: {'fake_failure': 6})" in said
