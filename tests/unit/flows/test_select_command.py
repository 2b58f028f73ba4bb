import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import cli
from flows.commands.candidate_table import read_candidates
from flows.commands.select import select
from flows.commands.variance import variance
from infra.row_files import read_rows, write_rows
from pvar.errors import ConfigError, InputError

POOL = Path(__file__).parents[3].parent / "shared/data/preference_pool/pool.jsonl.gz"

# Two rewards each: PVar grows with their distance, so by PVar the order is c, b, d, a.
REWARDS = [
    {"prompt_id": prompt, "reward": reward}
    for prompt, pair in {"a": (0, 0), "b": (5, 7), "c": (-2, 3), "d": (1, 2)}.items()
    for reward in pair
]
TABLE = [
    {"prompt_id": "a", "pvar": 0.0, "disagreement": 0.3, "num_tokens": 30},
    {"prompt_id": "b", "pvar": 0.2, "disagreement": 0.1, "num_tokens": 20},
    {"prompt_id": "c", "pvar": None, "disagreement": 0.2, "num_tokens": 10},
    {"prompt_id": "d", "pvar": 0.1, "disagreement": None, "num_tokens": 50},
]


@pytest.fixture(params=["rewards.jsonl", "rewards.parquet"])
def rewards(tmp_path, request):
    write_rows(tmp_path / request.param, REWARDS)
    return tmp_path / request.param


@pytest.fixture(params=["table.jsonl.gz", "table.parquet"])
def table(tmp_path, request):
    write_rows(tmp_path / request.param, TABLE)
    return tmp_path / request.param


def selected(path, **options):
    out = path.with_name("out.jsonl")
    select(path, out=out, **options)
    return [row.fields["prompt_id"] for row in read_rows(out)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_missing_pvar_is_missing_whatever_list_stands_beside_it(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    rows = [("a", 0.1), ("b", None), ("c", 0.2)]
    write_rows(path, [{"prompt_id": i, "pvar": p, "rewards": [1.0, 2.0, 3.0]} for i, p in rows])
    found = read_candidates(path, "top", None).candidates
    assert list(found.prompt_ids) == ["a", "b", "c"]
    np.testing.assert_array_equal(found.measures["pvar"], [0.1, np.nan, 0.2])


def test_the_top_comes_from_high_pvar_and_the_bottom_from_low(rewards):
    assert selected(rewards, strategy="top", fraction=0.5) == ["c", "b"]
    assert selected(rewards, strategy="bottom", fraction=0.5) == ["a", "d"]


def test_gap_and_variance_of_rewards_are_computed_too(rewards, tmp_path):
    out = tmp_path / "out.jsonl"
    select(rewards, strategy="reward_gap", count=2, out=out)
    assert [row.fields for row in read_rows(out)] == [
        {"prompt_id": "c", "reward_gap": 5.0},
        {"prompt_id": "b", "reward_gap": 2.0},
    ]
    # Unbiased variance of two rewards is half their squared distance.
    select(rewards, strategy="reward_variance", count=2, out=out)
    assert [row.fields["reward_variance"] for row in read_rows(out)] == [12.5, 2.0]


@pytest.mark.parametrize("name", ["lists.jsonl", "lists.parquet"])
def test_lists_of_rewards_select_as_single_ones(tmp_path, name, capsys):
    lists = {"a": [0, 0, None], "b": [5, 7], "c": [-2, 3], "d": [1, 2], "e": [9]}
    rows = [{"prompt_id": prompt, "rewards": them} for prompt, them in lists.items()]
    write_rows(tmp_path / name, rows)
    assert selected(tmp_path / name, strategy="top", count=9) == ["c", "b", "d", "a"]
    assert selected(tmp_path / name, strategy="reward_gap", count=1, as_json=True) == ["c"]
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["pvar_origin"] == "computed from 9 rewards with scale τ = 1"


LINES = (
    b'{"prompt_id": "a", "rewards": [0, 0],   "text": "kept as \\u00e9 \xe2\x80\xa8"}\n'
    b'{"prompt_id":"b","rewards":[5,7]}\r\n'
    b'{"prompt_id": "c", "rewards": ["unusable"]}\n'
    b"{broken\n"
    b"\n"
    b'{"text": {"z": 1, "a": 1.00}, "rewards": [-2, 3], "prompt_id": "c"}'
)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_chosen_lines_are_written_byte_for_byte_in_their_order(tmp_path, packed, capsys):
    source, rows = tmp_path / f"in.jsonl{packed}", tmp_path / f"rows.jsonl{packed}"
    read = gzip.decompress if packed else bytes
    source.write_bytes(gzip.compress(LINES) if packed else LINES)
    select(source, count=2, rows=rows, as_json=True)
    lines = LINES.splitlines(keepends=True)
    assert read(rows.read_bytes()) == lines[1] + lines[-1]
    assert json.loads(capsys.readouterr().out)["rows_written"] == 2


def test_all_rows_of_a_chosen_prompt_are_written(rewards, tmp_path):
    out = tmp_path / f"rows{rewards.suffix}"
    select(rewards, strategy="top", count=2, rows=out)
    assert [row.fields for row in read_rows(out)] == [
        row for row in REWARDS if row["prompt_id"] in "bc"
    ]


@pytest.mark.parametrize("is_compliant", [True, False])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.int32()])
def test_chosen_parquet_rows_keep_their_schema(tmp_path, kind, is_compliant):
    ids = [1, 2, 3] if pa.types.is_integer(kind) else ["a", "b", "c"]
    schema = pa.schema(
        [
            ("nested", pa.list_(pa.struct([("answer", pa.string()), ("rank", pa.int8())]))),
            pa.field("prompt_id", kind, metadata={"about": "ids"}),
            ("rewards", pa.list_(pa.float32())),
        ],
        metadata={"source": "by hand"},
    )
    columns = [[[{"answer": "x", "rank": 1}], None, []], ids, [[0.0, 0.5], [1.0, 1.0], [9.0, 0.0]]]
    table = pa.table(columns, schema=schema)
    path = tmp_path / "in.parquet"
    pq.write_table(table, path, use_compliant_nested_type=is_compliant)  # names of list elements
    select(path, count=2, rows=tmp_path / "rows.parquet")
    found = pq.read_table(tmp_path / "rows.parquet")
    table = pq.read_table(path)
    assert found.schema.equals(table.schema, check_metadata=True)
    assert found.equals(table.take([0, 2]))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_chosen_rows_of_a_pool_need_no_prompt_id(tmp_path, kind):
    rows = [
        {
            "source": "flan",
            "instruction": name,
            "completions": [{"response": f"{score}", "overall_score": score} for score in scores],
        }
        for name, scores in {"a": [1.0, 1.5], "b": [1.0, 9.0], "c": [4.0, 9.0]}.items()
    ]
    write_rows(tmp_path / f"pool.{kind}", rows)
    select(tmp_path / f"pool.{kind}", count=2, rows=tmp_path / f"rows.{kind}")
    assert [row.fields for row in read_rows(tmp_path / f"rows.{kind}")] == rows[1:]


def test_elements_of_a_json_array_become_lines(tmp_path):
    (tmp_path / "in.json").write_text(
        json.dumps([*TABLE, {"prompt_id": "é", "pvar": 0.25, "num_tokens": 3}])
    )
    select(tmp_path / "in.json", count=2, rows=tmp_path / "rows.jsonl")
    text = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    assert text == f'{json.dumps(TABLE[1])}\n{{"prompt_id": "é", "pvar": 0.25, "num_tokens": 3}}\n'


@pytest.mark.parametrize(
    ("source", "rows", "message"),
    [
        ("table.jsonl", "rows.parquet", r"its format; the name must end with .jsonl or .jsonl.gz"),
        ("table.parquet", "rows.jsonl", r"the name must end with .parquet"),
        ("-", "rows.jsonl", "give a file"),
    ],
)
def test_rows_that_could_not_stay_as_they_are_are_refused(tmp_path, source, rows, message):
    path = Path("-") if source == "-" else tmp_path / source
    with pytest.raises(ConfigError, match=message):
        select(path, count=1, rows=tmp_path / rows)
    assert not (tmp_path / rows).exists()


def test_one_reward_alone_has_no_gap(tmp_path):
    write_rows(tmp_path / "rewards.jsonl", [*REWARDS, {"prompt_id": "e", "reward": 99.0}])
    everything = selected(tmp_path / "rewards.jsonl", strategy="reward_gap", fraction=1.0)
    assert everything == ["c", "b", "d", "a"]


def test_a_table_with_pvar_is_taken_as_it_is_and_the_summary_says_so(table, rewards, capsys):
    assert selected(table, strategy="top", count=4, as_json=True) == ["b", "d", "a"]
    summary = json.loads(capsys.readouterr().out)
    assert summary["pvar_origin"] == "read from the column pvar"
    assert summary["left_out"] == {"no_measure": 1}
    select(rewards, strategy="top", count=1, scale=2.0, as_json=True)
    summary = json.loads(capsys.readouterr().out)
    assert summary["pvar_origin"] == "computed from 8 rewards with scale τ = 2"


def test_other_measures_and_token_budgets_come_from_the_table(table):
    assert selected(table, strategy="disagreement", count=2) == ["a", "c"]
    assert selected(table, strategy="top", tokens=70) == ["b", "d"]


def test_the_output_of_variance_is_an_input_of_select(rewards, tmp_path):
    variance(rewards, out=tmp_path / "pvar.parquet")
    assert selected(tmp_path / "pvar.parquet", strategy="top", fraction=0.5) == ["c", "b"]


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    for name, rows in (("a.jsonl", REWARDS), ("b.jsonl", REWARDS[::-1])):
        write_rows(tmp_path / name, rows)
    for strategy in ("top", "random", "stratified"):
        first, second = (
            selected(tmp_path / name, strategy=strategy, count=2, seed=4)
            for name in ("a.jsonl", "b.jsonl")
        )
        assert first == second


def test_the_summary_counts_ties_at_the_cut(tmp_path, capsys):
    rows = [{"prompt_id": number, "pvar": 0.25} for number in range(10)]
    write_rows(tmp_path / "table.jsonl", rows)
    assert selected(tmp_path / "table.jsonl", fraction=0.3, as_json=True) == [0, 1, 2]
    summary = json.loads(capsys.readouterr().out)
    assert summary["cut_value"] == 0.25
    assert summary["ties_at_cut"] == {"selected": 3, "left_out": 7}
    assert summary["budget"] == {"fraction": 0.3}


def test_all_and_threshold_need_no_budget(table):
    assert selected(table, strategy="all") == ["a", "b", "c", "d"]
    assert selected(table, strategy="threshold", threshold=0.1) == ["b", "d"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "top"}, "needs a budget; give --fraction, --count or --tokens"),
        ({"strategy": "all", "count": 1}, "leave the budget out"),
        ({"strategy": "top", "count": 1, "fraction": 0.5}, "^budget needs exactly one of"),
        (
            {"strategy": "top", "fraction": 1.5},
            r"^fraction: .*less than or equal to 1 \(given: 1.5\)",
        ),
        ({"strategy": "top", "count": 1, "threshold": 0.1}, "top has no threshold; leave"),
        ({"strategy": "top", "count": 1, "scale": 2.0}, "omit --scale"),
        ({"strategy": "threshold"}, "between 0 and"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(table, options, message):
    with pytest.raises(ConfigError, match=message):
        select(table, **options)


@pytest.mark.parametrize("name", ["table.jsonl", "table.parquet"])
@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"prompt_id": "a", "score": 1}], {}, "neither a column pvar .* nor a column reward"),
        ([{"prompt_id": "a", "pvar": 0.1}] * 2, {}, "one row per prompt, but prompt a has 2"),
        ([{"prompt_id": "a", "pvar": 0.3}], {}, "the pvar of prompt a is 0.3"),
        ([{"prompt_id": "a", "pvar": -0.1}], {}, "the pvar of prompt a is -0.1"),
        ([{"prompt_id": "a", "pvar": 0.1}], {"strategy": "disagreement"}, "disagreement"),
        (
            [{"prompt_id": "a", "pvar": 0.1, "num_tokens": 1.5}],
            {},
            "the num_tokens of prompt a is 1.5",
        ),
        (
            [{"prompt_id": "a", "pvar": 0.1, "num_tokens": None}],
            {},
            "the num_tokens of prompt a is nan",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused_by_what_is_wrong(tmp_path, name, rows, options, message):
    write_rows(tmp_path / name, rows)
    with pytest.raises(InputError, match=message):
        select(tmp_path / name, count=1, **options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "pvar": 0.1}], "no column prompt_id"),
        ([{"prompt_id": 1.5, "pvar": 0.1}], "row 1: prompt_id is 1.5, not a string"),
        ([{"prompt_id": "a", "pvar": "high"}], "row 1: pvar is 'high', not a number"),
        ([{"prompt_id": None, "pvar": 0.1}], "prompt_id"),
    ],
)
def test_a_parquet_table_with_wrong_columns_is_refused_by_its_first_row(tmp_path, rows, message):
    write_rows(tmp_path / "table.parquet", rows)
    with pytest.raises(InputError, match=message):
        select(tmp_path / "table.parquet", count=1)


@pytest.mark.parametrize("name", ["table.jsonl", "table.parquet"])
def test_rows_without_a_prompt_id_are_left_out_and_counted(tmp_path, capsys, name):
    (tmp_path / "table.jsonl").write_text('{"prompt_id": "a", "pvar": 0.1}\n{"pvar": 0.2}\n')
    rows = [{"prompt_id": "a", "pvar": 0.1}, {"prompt_id": None, "pvar": 0.2}]
    write_rows(tmp_path / "table.parquet", rows)
    assert selected(tmp_path / name, count=5, as_json=True) == ["a"]
    assert json.loads(capsys.readouterr().out)["rows_rejected"] == {"no_prompt_id": 1}


@pytest.mark.parametrize("name", ["rewards.jsonl", "rewards.parquet"])
def test_rewards_without_a_prompt_id_are_left_out_and_counted(tmp_path, capsys, name):
    write_rows(tmp_path / name, [*REWARDS, {"prompt_id": None, "reward": 50.0}])
    if name.endswith("jsonl"):  # there a missing key is no id, and null one of a wrong type
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(re.sub(r'"prompt_id": ?null, ?', "", text))
    assert selected(tmp_path / name, strategy="top", count=9, as_json=True) == ["c", "b", "d", "a"]
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows_rejected"] == {"no_prompt_id": 1}
    assert summary["pvar_origin"] == "computed from 8 rewards with scale τ = 1"
    variance(tmp_path / name, as_json=True)
    assert json.loads(capsys.readouterr().out)["rewards_missing"] == 0


@pytest.mark.parametrize("name", ["rewards.jsonl", "rewards.parquet"])
def test_a_measure_that_rewards_do_not_determine_is_asked_for(tmp_path, name):
    write_rows(tmp_path / name, REWARDS)
    with pytest.raises(InputError, match=r"disagreement cannot be computed .* pvar and disagree"):
        select(tmp_path / name, strategy="disagreement", count=1)


def test_a_damaged_parquet_file_is_refused(tmp_path):
    (tmp_path / "table.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="not a valid Parquet file"):
        select(tmp_path / "table.parquet", count=1)


@pytest.mark.skipif(not POOL.exists(), reason="shared/data is not beside the project")
def test_the_top_tenth_of_the_real_pool_is_the_highest_pvar(tmp_path):
    variance(POOL, out=tmp_path / "pvar.jsonl")
    pvar = {
        row.fields["prompt_id"]: row.fields["pvar"] for row in read_rows(tmp_path / "pvar.jsonl")
    }
    select(POOL, strategy="top", fraction=0.1, out=tmp_path / "top.jsonl")
    top = [row.fields["prompt_id"] for row in read_rows(tmp_path / "top.jsonl")]
    assert len(top) == 40
    assert min(pvar[each] for each in top) > max(pvar[each] for each in pvar.keys() - set(top))


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "rewards.jsonl"
    rows = [{"prompt_id": str(row), "rewards": [0, row]} for row in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = path.read_bytes()
    other = str(tmp_path / "chosen.jsonl")
    for options in (["--rows", str(path)], ["--out", str(path)], ["--rows", other, "--out", other]):
        with pytest.raises(ConfigError, match=r"the input itself|name two files"):
            cli.app(["select", str(path), "--count", "2", *options], result_action="return_value")
    assert path.read_bytes() == before


@pytest.mark.parametrize("num_tokens", [-1, 2**41, 2**62, 1e300, float("inf")])
def test_a_number_of_tokens_that_no_prompt_has_is_refused(tmp_path, num_tokens):
    """Sums of three times 2⁶² would be negative."""
    write = [{"prompt_id": each, "pvar": 0.1, "num_tokens": num_tokens} for each in "abc"]
    (tmp_path / "table.jsonl").write_text("\n".join(map(json.dumps, write)))
    with pytest.raises(InputError, match="it must be an integer from 0 to 1099511627776 and"):
        select(tmp_path / "table.jsonl", tokens=5)


@pytest.mark.parametrize("strategy", ["reward_gap", "reward_variance"])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_a_measure_that_no_float_holds_is_missing(tmp_path, capsys, strategy, scale):
    rows = [{"prompt_id": "a", "rewards": [1e308, -1e308]}, {"prompt_id": "b", "rewards": [1, 2]}]
    write_rows(tmp_path / "rows.jsonl", rows)
    select(tmp_path / "rows.jsonl", strategy=strategy, fraction=1.0, scale=scale, as_json=True)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["selected"], summary["left_out"]) == (1, {"no_measure": 1})


def test_a_scale_that_is_none_is_refused_for_every_measure(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [{"prompt_id": "b", "rewards": [1, 2]}])
    for strategy in ("top", "reward_gap", "reward_variance"):
        with pytest.raises(ConfigError, match=r"scale is 0\.0; expected a positive number"):
            select(tmp_path / "rows.jsonl", strategy=strategy, fraction=1.0, scale=0.0)
