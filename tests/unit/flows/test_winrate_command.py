"""`pvar winrate`: published numbers from the real files, and faults in files named."""

import gzip
import io
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.commands import winrate
from pvar.errors import InputError

SHARED = Path(__file__).parents[4] / "shared" / "data"
ALPACA_EVAL = SHARED / "alpaca_eval_2"
ARENA_HARD = SHARED / "arena_hard"

needs_shared_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the benchmarks' real data (../shared/data) is not here"
)

Rows = list[dict[str, Any]]


def run(*tokens: str | Path) -> None:
    command, arguments, _ = winrate.app.parse_args([str(token) for token in tokens])
    command(*arguments.args, **arguments.kwargs)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def read(path: Path) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def alpaca_eval_files(model: str, **other: Path) -> list[str | Path]:
    paths = {
        "annotations": ALPACA_EVAL / "annotations" / f"{model}.jsonl.gz",
        "outputs": ALPACA_EVAL / "model_outputs" / f"{model}.jsonl.gz",
        "baseline": ALPACA_EVAL / "baseline_gpt4_1106_preview.jsonl.gz",
        "calibration": ALPACA_EVAL / "calibration",
    } | other
    return ["alpaca-eval", *(part for name in paths for part in (f"--{name}", paths[name]))]


# --- AlpacaEval ---


@needs_shared_data
def test_alpaca_eval_prints_the_published_numbers_without_a_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public scorer downloads its calibration at this point."""

    def refuse(*_: object) -> None:
        raise AssertionError("a win rate needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    run(*alpaca_eval_files("alpaca-7b"), "--json")
    result = printed(capsys)

    assert result["win_rate"] == pytest.approx(2.591450540223603, abs=1e-6)
    assert result["standard_error"] == pytest.approx(0.4870855382635108, abs=1e-6)
    assert result["discrete_win_rate"] == pytest.approx(2.298136645962733, abs=1e-6)
    assert (result["n_total"], result["n_wins"], result["n_wins_base"]) == (805, 17, 785)
    assert result["avg_length"] == 396
    assert result["length_controlled_winrate"] == pytest.approx(5.875487163278986, abs=0.1)
    assert result["lc_standard_error"] == pytest.approx(0.375, abs=0.01)
    assert result["coverage"] == 1.0
    assert result["lc_comparable"] is True
    assert result["calibration_published"] is False


@needs_shared_data
def test_a_shuffled_subset_is_joined_by_instruction_and_states_its_coverage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """280 of 805 judged, in any order, among answers in any order."""
    files = {
        "annotations": read(ALPACA_EVAL / "annotations" / "alpaca-7b.jsonl.gz")[100:380],
        "outputs": read(ALPACA_EVAL / "model_outputs" / "alpaca-7b.jsonl.gz"),
        "baseline": read(ALPACA_EVAL / "baseline_gpt4_1106_preview.jsonl.gz"),
    }
    results = []
    for order in (1, -1):
        paths = {
            name: write(tmp_path / f"{name}.jsonl", rows[::order]) for name, rows in files.items()
        }
        run(*alpaca_eval_files("alpaca-7b", **paths), "--json")
        results.append(printed(capsys))

    assert results[0]["coverage"] == 280 / 805
    assert results[0]["n_total"] == 280
    for key in ("win_rate", "length_controlled_winrate", "lc_standard_error", "avg_length"):
        assert results[1][key] == pytest.approx(results[0][key], abs=1e-9)


@needs_shared_data
def test_a_failed_judgment_is_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read(ALPACA_EVAL / "annotations" / "alpaca-7b.jsonl.gz")
    for row in rows[:161]:
        row["preference"] = None
    path = write(tmp_path / "annotations.jsonl", rows)
    run(*alpaca_eval_files("alpaca-7b", annotations=path), "--json")
    result = printed(capsys)

    assert (result["n_total"], result["coverage"]) == (644, 0.8)


@needs_shared_data
def test_another_judge_makes_the_length_controlled_number_incomparable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(*alpaca_eval_files("alpaca-7b"), "--judge", "our-own", "--json")

    assert printed(capsys)["lc_comparable"] is False


def tiny(tmp_path: Path, **changes: Rows) -> list[str | Path]:
    """Two instructions, one with a line separator inside; no calibration."""
    questions = ["one\u2028line", "two"]
    rows: dict[str, Rows] = {
        "annotations": [
            {"instruction": q, "generator_1": "base", "generator_2": "mine", "preference": p}
            for q, p in zip(questions, (2.0, 1.25), strict=True)
        ],
        "outputs": [{"instruction": q, "output": "äöü\u2028"} for q in questions],
        "baseline": [{"instruction": q, "output": "abcdef"} for q in questions],
    } | changes
    paths = {name: write(tmp_path / f"{name}.jsonl", each) for name, each in rows.items()}
    return ["alpaca-eval", *(part for name in paths for part in (f"--{name}", paths[name]))]


def test_texts_with_line_separators_are_one_row_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*tiny(tmp_path), "--json")
    result = printed(capsys)

    assert (result["n_total"], result["avg_length"]) == (2, 4)
    assert result["win_rate"] == pytest.approx(62.5)


def test_without_calibration_there_is_no_length_controlled_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*tiny(tmp_path), "--json")
    result = printed(capsys)

    assert result["length_controlled_winrate"] is None
    assert result["lc_standard_error"] is None


def test_a_missing_answer_has_length_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = [
        {"instruction": "two", "generator_1": "base", "generator_2": "mine", "preference": 2}
    ]
    outputs = [{"instruction": "two", "output": "12345"}]
    run(*tiny(tmp_path, annotations=annotations, outputs=outputs), "--json")
    result = printed(capsys)

    # (5 + 0) / 2 = 2.5, cut to a whole number as on the leaderboard.
    assert (result["avg_length"], result["coverage"]) == (2, 0.5)


def test_the_table_for_people_names_model_and_coverage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*tiny(tmp_path))
    text = capsys.readouterr().out

    assert "mine" in text
    assert "Judged / wanted" in text


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("annotations", "instruction"),
        ("annotations", "preference"),
        ("annotations", "generator_2"),
        ("outputs", "output"),
        ("baseline", "output"),
    ],
)
def test_a_file_without_a_needed_column_is_refused_by_naming_it(
    tmp_path: Path, name: str, column: str
) -> None:
    arguments = tiny(tmp_path)
    path = tmp_path / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    write(path, [{key: row[key] for key in row if key != column} for row in rows])

    with pytest.raises(InputError, match=rf"{name}.jsonl: there is no column {column}"):
        run(*arguments, "--json")


def annotation(instruction: str, **changes: object) -> dict[str, Any]:
    return {
        "instruction": instruction,
        "generator_1": "base",
        "generator_2": "mine",
        "preference": 1.5,
    } | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [annotation("two"), annotation("two")]}, "'two' is judged twice"),
        (
            {"annotations": [annotation("two"), annotation("one\u2028line", generator_2="x")]},
            "2 pairs of generator_1 and generator_2",
        ),
        ({"annotations": [annotation("three")]}, "the outputs file has no answer to 1 of 1 judged"),
        ({"annotations": [annotation("two", preference="2")]}, "preference is '2'"),
        ({"annotations": [annotation("two", preference=3)]}, "not on AlpacaEval's scale"),
        ({"outputs": [{"instruction": "two", "output": None}]}, "output is None"),
        (
            {"outputs": [{"instruction": "two", "output": "a"}] * 2},
            "row 2: a second answer to 'two'",
        ),
    ],
)
def test_rows_that_make_no_number_are_refused(
    tmp_path: Path, changes: dict[str, Rows], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(*tiny(tmp_path, **changes), "--json")


def test_a_bad_line_is_named_and_not_left_out(tmp_path: Path) -> None:
    arguments = tiny(tmp_path)
    with (tmp_path / "outputs.jsonl").open("a") as file:
        file.write("{not json\n")

    with pytest.raises(InputError, match=r"outputs.jsonl, line 3: not JSON"):
        run(*arguments)


def test_a_calibration_folder_without_its_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"instruction_difficulty.csv: cannot be read"):
        run(*tiny(tmp_path), "--calibration", tmp_path)


def test_a_baseline_that_is_another_evaluation_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "instruction_difficulty.csv").write_text("index,instruction_difficulty\n0,1\n")
    (tmp_path / "df_gamed.csv").write_text(
        "preference,index,std_delta_len,instruction_difficulty\n0.5,0,0.1,1\n"
    )

    with pytest.raises(InputError, match=r"no difficulty for 1 of 2 instructions.*number 1"):
        run(*tiny(tmp_path), "--calibration", tmp_path)


def test_an_index_column_that_repeats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "instruction_difficulty.csv").write_text("index,instruction_difficulty\n0,1\n")
    (tmp_path / "df_gamed.csv").write_text(
        "preference,index,std_delta_len,instruction_difficulty\n0.5,0,0.1,1\n"
    )
    baseline = [{"instruction": q, "output": "a", "index": 0} for q in ("one\u2028line", "two")]

    with pytest.raises(InputError, match="different integer in every row"):
        run(*tiny(tmp_path, baseline=baseline), "--calibration", tmp_path)


# --- Arena-Hard ---


def game(question_id: str, first: str | None, second: str | None, **more: Any) -> dict[str, Any]:
    return {
        "question_id": question_id,
        "model": "mine",
        "baseline": "base",
        "games": [{"score": first}, {"score": second}],
    } | more


@needs_shared_data
def test_arena_hard_prints_the_published_leaderboard(
    capsys: pytest.CaptureFixture[str],
) -> None:
    games = ARENA_HARD / "v0.1" / "games" / "fork_20240815.jsonl.gz"
    run("arena-hard", "--games", games, "--version", "v0.1", "--json")
    results = printed(capsys)

    assert [result["model"] for result in results][:2] == [
        "mistral_large_2_guided",
        "mistral_nemo_fp8_guided",
    ]
    best, second = results[:2]
    assert best["score"] == pytest.approx(83.63, abs=0.005)
    assert best["ci_lower"] == pytest.approx(81.92, abs=1.0)
    assert best["ci_upper"] == pytest.approx(85.25, abs=1.0)
    assert best["clustered_ci_lower"] < best["ci_lower"]
    assert (best["n_questions"], best["n_games"], best["coverage"]) == (500, 1000, 1.0)
    # 498 of the 500 questions are in the file, one game of them without a verdict.
    assert (second["n_questions"], second["n_games"], second["coverage"]) == (498, 995, 0.995)
    assert best["baseline"] == "gpt-4-0314"


@needs_shared_data
def test_half_a_file_has_half_the_coverage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a file lacks was not judged, and the file does not say so."""
    rows = read(ARENA_HARD / "v0.1" / "games" / "official_gpt-3.5-turbo-0125.jsonl.gz")
    path = write(tmp_path / "games.jsonl", rows[:250])
    run("arena-hard", "--games", path, "--version", "v0.1", "--json")

    assert printed(capsys)[0]["coverage"] == 0.5


def test_games_come_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = json.dumps(game("q", "B>A", "B>A", note="a\u2028b"), ensure_ascii=False).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines + b"\n")))
    run("arena-hard", "--games", "-", "--version", "v0.1", "--json")

    assert printed(capsys)[0]["score"] == 50.0


def test_the_versions_differ_in_what_a_null_game_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "games.jsonl", [game("1", "B>A", "A>B"), game("2", None, "B>A")])
    scores = []
    for version in ("v0.1", "v2.0"):
        run("arena-hard", "--games", path, "--version", version, "--json")
        scores.append(printed(capsys)[0]["score"])

    assert scores == [pytest.approx(200 / 3), 100.0]


def test_categories_have_their_own_scores_and_coverage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    games = write(
        tmp_path / "games.jsonl",
        [
            game("h1", "B>A", "A>B"),
            game("h2", "A=B", "A=B"),
            game("c1", "A>B", "B>A", baseline="creative base"),
        ],
    )
    questions = write(
        tmp_path / "questions.jsonl",
        [{"uid": f"h{n}", "category": "hard_prompt", "prompt": "\u2028"} for n in range(4)]
        + [{"uid": "c1", "category": "creative_writing", "prompt": ""}],
    )
    run(
        *("arena-hard", "--games", games, "--version", "v2.0"),
        *("--questions", questions, "--json"),
    )
    result = printed(capsys)[0]

    assert (result["score"], result["coverage"]) == (50.0, 6 / 10)
    assert result["baseline"] == "base, creative base"
    by_category = {each["category"]: each for each in result["categories"]}
    assert by_category["hard_prompt"]["score"] == 75.0
    assert by_category["hard_prompt"]["coverage"] == 4 / 8
    assert by_category["creative_writing"]["score"] == 0.0
    assert by_category["creative_writing"]["coverage"] == 1.0


@needs_shared_data
@pytest.mark.parametrize("style", ["length", "markdown", "length,markdown"])
def test_style_control_reads_published_metadata(
    style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ARENA_HARD / "v0.1"
    run(
        *("arena-hard", "--games", folder / "games" / "official_gpt-3.5-turbo-0125.jsonl.gz"),
        *("--version", "v0.1", "--style", style),
        *("--metadata", folder / "style_metadata.jsonl.gz", "--json"),
    )
    result = printed(capsys)[0]

    # gpt-3.5-turbo-0125 answers a little shorter than the baseline: 23.34 without control.
    assert 21 < result["score"] < 23.3
    assert result["style"] == style.split(",")
    assert result["coverage"] == 0.994


def test_style_is_counted_in_answers_that_have_no_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    games = write(
        tmp_path / "games.jsonl",
        [game(f"q{n}", "B>A" if n % 3 else "A>B", "A>B" if n % 2 else "B>A") for n in range(12)],
    )

    def answer(model: str, number: int, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": {"answer": text}}
        return {
            "uid": f"q{number}",
            "model": model,
            "messages": [message],
            "metadata": {"token_len": 10},
        }

    metadata = write(
        tmp_path / "answers.jsonl",
        [answer("mine", n, "# Title\n- one" if n % 3 else "plain") for n in range(12)]
        + [answer("base", n, "plain") for n in range(12)],
    )
    run(
        *("arena-hard", "--games", games, "--version", "v2.0", "--style", "markdown"),
        *("--metadata", metadata, "--json"),
    )
    result = printed(capsys)[0]

    assert result["n_games"] == 24
    assert result["ci_lower"] < result["score"] < result["ci_upper"]


@pytest.mark.parametrize("column", ["question_id", "model", "games"])
def test_games_without_a_needed_column_are_refused_by_naming_it(
    tmp_path: Path, column: str
) -> None:
    row = game("q", "A>B", "B>A")
    del row[column]

    with pytest.raises(InputError, match=rf"there is no column {column}"):
        run("arena-hard", "--games", write(tmp_path / "g.jsonl", [row]), "--version", "v0.1")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([game("q", "A>B", "B>A")] * 2, "question q of mine occurs twice"),
        ([game("q", "A>B", "B>A", games=[{"score": "A>B"}])], "games must be a list of two"),
        ([game("q", "A>B", "B>A", games=[{}, None])], "a game lacks the column score"),
        ([game("q", "A>B", "B>A", model=3)], "model is 3; it must be a string"),
    ],
)
def test_rows_that_are_no_games_are_refused(tmp_path: Path, rows: Rows, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run("arena-hard", "--games", write(tmp_path / "g.jsonl", rows), "--version", "v0.1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--style", "length"], "--style and --metadata belong together"),
        (["--style", "color"], "'color' is unknown; use length, markdown"),
    ],
)
def test_style_options_that_cannot_work_are_refused(
    tmp_path: Path, options: list[str], message: str
) -> None:
    path = write(tmp_path / "g.jsonl", [game("q", "A>B", "B>A")])

    with pytest.raises(InputError, match=message):
        run("arena-hard", "--games", path, "--version", "v0.1", *options)


def test_a_question_that_nobody_wanted_is_refused(tmp_path: Path) -> None:
    games = write(tmp_path / "g.jsonl", [game("q", "A>B", "B>A")])
    questions = write(tmp_path / "q.jsonl", [{"uid": "other"}])

    with pytest.raises(InputError, match="question q is not among the wanted questions"):
        run("arena-hard", "--games", games, "--version", "v0.1", "--questions", questions)


def test_the_leaderboard_for_people_has_a_line_for_each_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [game("q", "B>A", "A>B"), game("q", "A>B", "B>A", model="worse")]
    run("arena-hard", "--games", write(tmp_path / "g.jsonl", rows), "--version", "v0.1")
    text = capsys.readouterr().out

    assert text.index("mine") < text.index("worse")


# --- the projects' own files ---


def annotation(number: int, preference: float, **columns: str) -> dict[str, Any]:
    names = {"generator_1": "base", "generator_2": "mine"}
    return {"instruction": f"q{number}", **names, "preference": preference, **columns}


def answers_of(model: str | None, *numbers: int) -> Rows:
    names = {} if model is None else {"generator": model}
    return [{"instruction": f"q{number}", "output": "x" * 10, **names} for number in numbers]


def judged_files(tmp_path: Path, annotations: Rows, outputs: Rows, baseline: Rows) -> list[str]:
    files = {"annotations": annotations, "outputs": outputs, "baseline": baseline}
    return [
        part
        for name, rows in files.items()
        for part in (f"--{name}", str(write(tmp_path / f"{name}.jsonl", rows)))
    ]


@pytest.mark.parametrize(
    ("of_outputs", "of_baseline", "message"),
    [
        ("somebody-else", "base", "outputs file has answers of 'somebody-else'.*judge 'mine'"),
        ("mine", "another-base", "baseline file has answers of 'another-base'.*judge 'base'"),
    ],
)
def test_answers_of_another_model_are_refused(
    tmp_path: Path, of_outputs: str, of_baseline: str, message: str
) -> None:
    files = judged_files(
        tmp_path,
        [annotation(n, 1.5) for n in range(3)],
        answers_of(of_outputs, 0, 1, 2),
        answers_of(of_baseline, 0, 1, 2),
    )
    with pytest.raises(InputError, match=message):
        run("alpaca-eval", *files)


def test_an_empty_answer_that_was_judged_has_length_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published files lack the empty answers: 4 answers of 10 characters over 5 are 8."""
    files = judged_files(
        tmp_path,
        [annotation(0, 1.0, output_2=""), *(annotation(n, 2.0, output_2="x") for n in range(1, 5))],
        answers_of("mine", 1, 2, 3, 4),
        answers_of(None, 0, 1, 2, 3, 4),
    )
    run("alpaca-eval", *files, "--json")
    result = printed(capsys)
    assert (result["avg_length"], result["win_rate"], result["n_total"]) == (8, 80.0, 5)


def test_a_judged_answer_that_is_missing_is_refused(tmp_path: Path) -> None:
    files = judged_files(
        tmp_path,
        [annotation(n, 1.5, output_2="x") for n in range(2)],
        answers_of("mine", 1),
        answers_of("base", 0, 1),
    )
    with pytest.raises(InputError, match="outputs file has no answer to 1 of 2"):
        run("alpaca-eval", *files)


def test_published_files_are_json_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"annotations": [annotation(0, 2.0)], "outputs": answers_of("mine", 0)}
    names["baseline"] = answers_of("base", 0)
    files = []
    for name, rows in names.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows, indent=2))
        files += [f"--{name}", str(tmp_path / f"{name}.json")]
    run("alpaca-eval", *files, "--json")
    assert printed(capsys)["win_rate"] == 100.0


@pytest.mark.parametrize(
    ("row", "version", "baseline"),
    [
        ({"question_id": "q0", "judge": "j"}, "v0.1", "gpt-4-0314"),
        ({"uid": "q0", "judge": "j", "category": "hard_prompt", "baseline": "b"}, "v2.0", "b"),
    ],
)
def test_arena_hards_own_judgments_are_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    row: dict[str, Any],
    version: str,
    baseline: str,
) -> None:
    """v2.0 has uid instead of question_id, v0.1 no baseline. Two losses: A wins as baseline."""
    rows = [{**row, "model": "m", "games": [{"score": "A>B"}, {"score": "B>A"}]}]
    run("arena-hard", "--games", write(tmp_path / "g.jsonl", rows), "--version", version, "--json")
    (result,) = printed(capsys)
    assert (result["score"], result["baseline"], result["n_games"]) == (0.0, baseline, 2)


@needs_shared_data
@pytest.mark.parametrize(
    ("options", "judge"),
    [((), "gpt-4.1"), (("--judge", "weighted_alpaca_eval_gpt4_turbo"), None)],
)
def test_the_judge_that_the_annotations_name_is_compared_with_the_leaderboards(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    judge: str | None,
) -> None:
    rows = read(ALPACA_EVAL / "annotations" / "alpaca-7b.jsonl.gz")
    named = write(tmp_path / "a.jsonl", [{**row, "annotator": "gpt-4.1"} for row in rows])
    run(*alpaca_eval_files("alpaca-7b", annotations=named), *options, "--json")
    result = printed(capsys)
    assert result["judge"] == (judge or "weighted_alpaca_eval_gpt4_turbo")
    assert result["lc_comparable"] is (judge is None)


@needs_shared_data
def test_a_partly_judged_file_is_not_comparable_with_the_leaderboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read(ALPACA_EVAL / "annotations" / "alpaca-7b.jsonl.gz")[:-1]
    files = alpaca_eval_files("alpaca-7b", annotations=write(tmp_path / "a.jsonl", rows))
    run(*files, "--json")
    result = printed(capsys)
    assert (result["n_total"], result["lc_comparable"]) == (804, False)
