import gzip
import io
import json
import math
import sys
import tempfile
from itertools import product
from pathlib import Path

import cyclopts
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.commands.reward_files import read_variances
from flows.commands.variance import variance
from infra.row_files import read_rows, write_rows
from pvar.digest import prompt_id as id_of_prompt
from pvar.errors import ConfigError, InputError
from pvar.records import Message

POOL = Path(__file__).parents[3].parent / "shared/data/preference_pool/pool.jsonl.gz"

ROWS = [
    {"prompt_id": "b", "reward": 0.0, "text": "one\u2028two"},
    {"prompt_id": "a", "reward": 1.0},
    {"prompt_id": "b", "reward": math.log(3)},
    {"prompt_id": "a", "reward": None},
    {"prompt_id": "c", "reward": 2.0},
    {"prompt_id": "c", "reward": 2.0},
    {"prompt_id": "c", "reward": 2.0},
]
# b: σ(ln 3) = ¾, so both ordered pairs are (¼)² = 0.0625. a: one reward, no PVar. c: all equal, 0.
TABLE = [
    {"prompt_id": "a", "num_responses": 1, "pvar": None, "stderr": None},
    {"prompt_id": "b", "num_responses": 2, "pvar": 0.0625, "stderr": None},
    {"prompt_id": "c", "num_responses": 3, "pvar": 0.0, "stderr": 0.0},
]


def rounded(path):
    return [
        {
            name: round(value, 12) if isinstance(value, float) else value
            for name, value in row.fields.items()
        }
        for row in read_rows(path)
    ]


@pytest.mark.parametrize("source", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
@pytest.mark.parametrize("target", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
def test_every_format_gives_the_same_table(tmp_path, source, target):
    write_rows(tmp_path / source, ROWS)
    variance(tmp_path / source, out=tmp_path / target)
    assert rounded(tmp_path / target) == TABLE


LISTS = [
    {"prompt_id": "b", "rewards": [0.0, math.log(3)], "responses": ["one\u2028two", "x"]},
    {"prompt_id": "a", "rewards": [1.0, None], "responses": ["y", "z"]},
    {"prompt_id": "c", "rewards": [2.0, 2.0, 2.0], "responses": []},
]
"""ROWS with one row per prompt."""


@pytest.mark.parametrize("source", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
@pytest.mark.parametrize("name", ["rewards", "all_rm_scores"])
def test_lists_of_rewards_give_the_table_of_single_rewards(tmp_path, capsys, source, name):
    rows = [{name if key == "rewards" else key: row[key] for key in row} for row in LISTS]
    write_rows(tmp_path / source, rows)
    variance(tmp_path / source, out=tmp_path / "out.jsonl", as_json=True)
    assert rounded(tmp_path / "out.jsonl") == TABLE
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rewards"], summary["rewards_missing"]) == (6, 1)
    assert summary["rows_rejected"] == {}


@pytest.mark.parametrize("source", ["rows.jsonl", "rows.parquet"])
def test_a_prompt_without_rewards_stays_and_its_reward_is_missing(tmp_path, capsys, source):
    """Rewards of two rows with one id are joined, as those of single rewards are."""
    rows = [*LISTS, {"prompt_id": "d", "rewards": []}, {"prompt_id": "e", "rewards": None}]
    rows += [{"prompt_id": "f", "rewards": [0]}, {"prompt_id": "f", "rewards": [math.log(3)]}]
    write_rows(tmp_path / source, rows)
    variance(tmp_path / source, out=tmp_path / "out.jsonl", as_json=True)
    more = [
        {"prompt_id": "d", "num_responses": 0, "pvar": None, "stderr": None},
        {"prompt_id": "e", "num_responses": 0, "pvar": None, "stderr": None},
        {"prompt_id": "f", "num_responses": 2, "pvar": 0.0625, "stderr": None},
    ]
    assert rounded(tmp_path / "out.jsonl") == [*TABLE, *more]
    assert json.loads(capsys.readouterr().out)["rewards_missing"] == 3


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"rewards": [1.0, "high"]}, "row 4: rewards[1] is 'high', not a number"),
        ({"rewards": [True]}, "row 4: rewards[0] is True, not a number"),
        ({"rewards": 3.0}, "row 4: rewards is 3.0, not a list of numbers"),
        ({"all_rm_scores": [[1.0]]}, "row 4: all_rm_scores[0] is [1.0], not a number"),
    ],
)
def test_a_wrong_list_is_left_out_and_its_line_is_named(tmp_path, capsys, row, problem):
    lines = [*map(json.dumps, LISTS), json.dumps({"prompt_id": "a", **row})]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    variance(tmp_path / "rows.jsonl", out=tmp_path / "out.jsonl", as_json=True)
    assert rounded(tmp_path / "out.jsonl") == TABLE
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows_rejected"] == {"bad_rewards": 1}
    assert summary["first_problem"] == problem


@pytest.mark.parametrize(
    ("rewards", "problem"),
    [
        (["high"], r"rewards\[0\] is 'high', not a number"),
        ([[1.0]], r"rewards\[0\] is \[1.0\], not a number"),
        ("high", "rewards is 'high', not a list of numbers"),
        (3.0, "rewards is 3.0, not a list of numbers"),
    ],
)
def test_a_parquet_column_of_other_lists_is_refused_by_its_first_row(tmp_path, rewards, problem):
    write_rows(tmp_path / "rows.parquet", [{"prompt_id": "a", "rewards": rewards}])
    with pytest.raises(InputError, match=f"all 1 rows are unusable; row 1: {problem}"):
        variance(tmp_path / "rows.parquet")


def test_single_rewards_come_before_lists(tmp_path):
    rows = [{**row, "rewards": "of another kind"} for row in ROWS]
    for source in ("rows.jsonl", "rows.parquet"):
        write_rows(tmp_path / source, rows)
        variance(tmp_path / source, out=tmp_path / "out.jsonl")
        assert rounded(tmp_path / "out.jsonl") == TABLE


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.lists(st.none() | st.floats(-50, 50), max_size=5) | st.none(),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_both_readers_and_both_forms_agree(rows):
    lists = [{"prompt_id": each, "rewards": rewards} for each, rewards in rows]
    single = [
        {"prompt_id": each, "reward": reward} for each, them in rows for reward in them or [None]
    ]
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (form, kind) in enumerate(product((lists, single), ("jsonl", "parquet"))):
            source, out = Path(folder) / f"{number}.{kind}", Path(folder) / f"out{number}.jsonl"
            schema = pa.schema([("prompt_id", pa.int64()), *FORMS[form is lists]])
            if kind == "parquet":
                pq.write_table(pa.Table.from_pylist(form, schema), source)
            else:
                write_rows(source, form)
            variance(source, out=out)
            tables.append(rounded(out))
    assert tables[0] == tables[1] == tables[2] == tables[3]


# As UltraFeedback, Nectar and SimPO publish them, without prompt_id. Answers of PVar 0.0625.
POOLS = {
    "ultrafeedback": {
        "instruction": "Name a river.",
        "completions": [
            {"response": "a", "overall_score": 1.0, "fine-grained_score": 2.0},
            {"response": "b", "overall_score": 1 + math.log(3), "fine-grained_score": 2.0},
            {"response": "c", "overall_score": 10.0, "fine-grained_score": 2.0},
            {"response": "d", "overall_score": None, "fine-grained_score": None},
        ],
    },
    "nectar": {
        "prompt": "\n\nHuman: Name a river.\n\nAssistant: ",
        "answers": [
            {"answer": "a", "rank": 1.0},
            {"answer": "b", "rank": 1 + math.log(3)},
            {"answer": "c", "rank": None},
            {"answer": "d", "rank": None},
        ],
    },
    "simpo": {
        "prompt": "Name a river.",
        "all_generated_responses": ["a", "b", "c", "d"],
        "all_rm_scores": [0.0, math.log(3), None, None],
    },
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("pool", POOLS)
def test_published_pools_are_read_as_they_are(tmp_path, capsys, pool, kind):
    """The id is the pipeline's, for the same messages in every form."""
    path, out = tmp_path / f"pool.{kind}", tmp_path / "out.jsonl"
    write_rows(path, [POOLS[pool]])
    variance(path, out=out, as_json=True)
    expected = id_of_prompt([Message("user", "Name a river.")])
    assert rounded(out) == [
        {"prompt_id": expected, "num_responses": 2, "pvar": 0.0625, "stderr": None}
    ]
    assert json.loads(capsys.readouterr().out)["rewards_missing"] == 2
    named = {"prompt_id": "mine", **POOLS[pool]}
    write_rows(path, [named])
    variance(path, out=out)
    assert [row["prompt_id"] for row in rounded(out)] == ["mine"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"completions": ["a"], "instruction": "b"}, "cannot be read (answer_not_text)"),
        ({"answers": [{"rank": "first"}], "prompt": "b"}, "cannot be read (score_not_a_number)"),
        ({"rewards": [1.0]}, "there is no prompt_id, and no prompt either (no_prompt)"),
    ],
)
def test_a_row_of_a_pool_that_cannot_be_read_is_left_out(tmp_path, capsys, row, problem):
    path = tmp_path / "pool.jsonl"
    write_rows(path, [POOLS["nectar"], row])
    variance(path, as_json=True)
    summary = json.loads(capsys.readouterr().out)
    assert summary["prompts"] == 1
    assert problem in summary["first_problem"]
    assert summary["first_problem"].startswith("row 2: ")


FORMS = {True: [("rewards", pa.list_(pa.float64()))], False: [("reward", pa.float64())]}


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS[::-1])
    variance(tmp_path / "rows.jsonl", out=tmp_path / "out.jsonl")
    assert rounded(tmp_path / "out.jsonl") == TABLE


def test_the_json_summary_has_every_figure(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text(
        "\n".join([*map(json.dumps, ROWS), "{broken", '{"prompt_id": "b", "reward": "high"}'])
    )
    variance(tmp_path / "rows.jsonl", as_json=True)
    summary = json.loads(capsys.readouterr().out)
    assert summary.pop("first_problem").startswith("row 8: not JSON")
    assert summary.pop("pvar_mean") == pytest.approx(0.03125)
    # Quantiles of {0, 0.0625} are linear between the two.
    assert summary.pop("pvar_quantiles") == pytest.approx(
        {
            "min": 0.0,
            "p10": 0.00625,
            "p25": 0.015625,
            "median": 0.03125,
            "p75": 0.046875,
            "p90": 0.05625,
            "max": 0.0625,
        }
    )
    assert summary == {
        "prompts": 3,
        "prompts_with_pvar": 2,
        "rewards": 6,
        "rewards_missing": 1,
        "rows_rejected": {"unreadable": 1, "bad_number": 1},
        "scale": 1.0,
        "saturation_share": 0.0,
        "ties_at_top_tenth": {"tied": 1, "taken": 1},
    }


def test_a_small_scale_saturates_and_the_summary_says_so(tmp_path, capsys):
    rows = [
        {"prompt_id": prompt, "reward": float(reward)} for prompt in range(20) for reward in (0, 1)
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    variance(tmp_path / "rows.jsonl", scale=0.01, as_json=True)
    summary = json.loads(capsys.readouterr().out)
    # σ(100) − ½ is ½ but for 4e-44: every pair is certain, all 20 prompts have ¼, two are taken.
    assert summary["saturation_share"] == 1.0
    assert summary["ties_at_top_tenth"] == {"tied": 20, "taken": 2}


def test_the_summary_for_people_fits_a_terminal(tmp_path, capsys):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    variance(tmp_path / "rows.jsonl")
    shown = capsys.readouterr().out
    assert "median: 0.03125" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_file_without_any_pair_has_no_pvar_and_no_crash(tmp_path, capsys):
    write_rows(tmp_path / "rows.jsonl", [{"prompt_id": "a", "reward": 1.0}])
    variance(tmp_path / "rows.jsonl", out=tmp_path / "out.jsonl", as_json=True)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["prompts_with_pvar"], summary["pvar_mean"]) == (0, None)
    variance(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("source", ["rows.jsonl", "rows.parquet"])
def test_integer_ids_stay_integers_and_sort_as_numbers(tmp_path, source):
    rows = [{"prompt_id": number, "reward": 0.0} for number in (10, 9, 10, 9)]
    write_rows(tmp_path / source, rows)
    variance(tmp_path / source, out=tmp_path / "out.jsonl")
    assert [row.fields["prompt_id"] for row in read_rows(tmp_path / "out.jsonl")] == [9, 10]


def test_dash_reads_standard_input_also_on_the_command_line(monkeypatch, capsys):
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    app = cyclopts.App(result_action="return_value")
    app.command(variance)
    app(["variance", "-", "--json"])
    assert json.loads(capsys.readouterr().out)["prompts"] == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt_id": "a", "score": 1.0}], "there is no column reward"),
        ([{"prompt": "a", "reward": 1.0}], "there is no column prompt_id"),
        ([{"prompt_id": "a", "reward": 1.0}, {"prompt_id": 1, "reward": 1.0}], "use one type"),
        ([{"prompt_id": 1.5, "reward": 1.0}], r"row 1: prompt_id is 1\.5"),
        ([{"prompt_id": 2**63, "reward": 1.0}], "row 1: prompt_id is 9223372036854775808"),
        ([{"prompt_id": "a", "reward": True}], "row 1: reward is True, not a number"),
        ([{"prompt_id": "a", "reward": 10**400}], "row 1: reward is 1000"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_what_is_wrong(tmp_path, rows, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=message) as error:
        variance(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("column", ["prompt_id", "reward"])
def test_a_parquet_file_without_a_column_is_refused_by_its_name(tmp_path, column):
    rows = [{name: value for name, value in ROWS[0].items() if name != column}]
    write_rows(tmp_path / "rows.parquet", rows)
    with pytest.raises(InputError, match=f"column {column}"):
        variance(tmp_path / "rows.parquet")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_reward_that_is_missing_beside_texts_is_a_missing_reward(tmp_path, capsys, suffix):
    """As without any null: the other column is not one of rewards."""
    path = tmp_path / f"rows{suffix}"
    rewards = [1.0, None, 2.0]
    write_rows(path, [{"prompt_id": "a", "reward": r, "completions": ["x"]} for r in rewards])
    variance(path, out=tmp_path / "out.jsonl")
    (row,) = read_rows(tmp_path / "out.jsonl")
    assert (row.fields["num_responses"], row.fields["pvar"]) == (
        2,
        pytest.approx(two_loops([1, 2])),
    )


def test_a_scale_that_is_not_positive_is_refused(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(ConfigError):
        variance(tmp_path / "rows.jsonl", scale=0.0)


def two_loops(rewards):
    """The definition, with no shortcut: mean of (σ(Δ) − ½)² over ordered pairs."""
    squares = [
        (1 / (1 + math.exp(second - first)) - 0.5) ** 2
        for i, first in enumerate(rewards)
        for j, second in enumerate(rewards)
        if i != j
    ]
    return sum(squares) / len(squares)


@pytest.mark.skipif(not POOL.exists(), reason="shared/data is not beside the project")
def test_the_real_preference_pool_matches_the_definition(tmp_path):
    rewards = {}
    with gzip.open(POOL, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            row = json.loads(line)
            rewards.setdefault(row["prompt_id"], []).append(row["reward"])
    variance(POOL, out=tmp_path / "out.parquet")
    table = {row.fields["prompt_id"]: row.fields for row in read_rows(tmp_path / "out.parquet")}
    assert table.keys() == rewards.keys()
    assert len(table) == 400
    for prompt_id, values in rewards.items():
        assert table[prompt_id]["num_responses"] == 8
        assert table[prompt_id]["pvar"] == pytest.approx(two_loops(values), abs=1e-12)


def test_the_scale_is_fitted_on_labelled_pairs(tmp_path, capsys):
    """Of 4 pairs that differ by 1, 3 are ordered as labelled: σ(1/τ) = ¾, so τ = 1/ln 3.

    With that τ, b's difference of ln 3 is ln² 3 log-odds.
    """
    write_rows(tmp_path / "rows.jsonl", ROWS)
    pairs = [{"chosen_reward": 1.0, "rejected_reward": 0.0}] * 3
    pairs += [{"chosen_reward": 0.0, "rejected_reward": 1.0}]
    pairs += [{"chosen_reward": None, "rejected_reward": 1.0}]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    variance(tmp_path / "rows.jsonl", scale_from=tmp_path / "pairs.jsonl", as_json=True)
    figures = json.loads(capsys.readouterr().out)
    assert figures["scale"] == pytest.approx(1 / math.log(3))
    assert figures["scale_pairs"] == 4
    expected = (1 / (1 + math.exp(-(math.log(3) ** 2))) - 0.5) ** 2
    assert figures["pvar_quantiles"]["max"] == pytest.approx(expected)


def test_labels_that_contradict_the_rewards_give_no_scale(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    write_rows(tmp_path / "pairs.jsonl", [{"chosen_reward": 0.0, "rejected_reward": 1.0}])
    with pytest.raises(InputError, match=r"pairs\.jsonl: .*contradicts the labels"):
        variance(tmp_path / "rows.jsonl", scale_from=tmp_path / "pairs.jsonl")
    with pytest.raises(InputError, match="give one of the two"):
        variance(tmp_path / "rows.jsonl", scale=2.0, scale_from=tmp_path / "pairs.jsonl")


def test_a_null_beside_a_list_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rewards.jsonl"
    rows = [
        {"prompt_id": "a", "rewards": None, "scores": [0.0, 1.0]},
        {"prompt_id": "b", "reward": None, "pvar": None, "rewards": [0.0, 1.0]},
        {"prompt_id": "c", "rewards": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_variances(path, scale=1.0)
    assert found.num_responses.tolist() == [2, 2, 0]


def test_lists_of_a_fixed_length_are_lists_and_a_column_of_nulls_is_passed_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rewards.parquet"
    lists = pa.array([[0.0, 1.0], [0.0, None]], pa.list_(pa.float64(), 2))
    columns = {"prompt_id": ["a", "b"], "rewards": pa.nulls(2), "scores": lists}
    pq.write_table(pa.table(columns), path)
    found = read_variances(path, scale=1.0)
    assert found.num_responses.tolist() == [2, 1]
    assert found.pvar[0] == pytest.approx((1 / (1 + math.exp(-1)) - 0.5) ** 2)
