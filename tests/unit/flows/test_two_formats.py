"""A table as JSON lines and as Parquet gives the same results, counts and errors.

Not only of the types that a writer of tables chooses: also of those that databases and pandas leave
in files, with texts that are not UTF-8, and with names that occur twice.
"""

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.commands.reliability import reliability
from flows.commands.select import select
from flows.commands.variance import variance
from infra.row_files import read_rows, write_rows
from pvar.errors import InputError, PvarError
from pvar.records import BadRow, Row

CASE = Path(__file__).parents[3].parent / "shared/cases/07-null-ids-parquet"

EXAMPLES = int(os.environ.get("PVAR_FUZZ_EXAMPLES", "160"))
"""Generated tables, over all commands."""
NOT_UTF8 = b"\xff"

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
few_texts = st.sampled_from(["a", "b", "é\u2028", ""])
few_integers = st.sampled_from([0, 1, 7])
floats = st.floats(width=32)
decimals = st.decimals(-99, 99, places=2)


class Kind(NamedTuple):
    """A type of a column, and values of it."""

    type: pa.DataType
    values: st.SearchStrategy[Any]


KINDS = {
    "string": Kind(pa.string(), few_texts),
    "large string": Kind(pa.large_string(), few_texts),
    "broken string": Kind(pa.string(), st.sampled_from(["a", "b", NOT_UTF8])),
    "dictionary": Kind(pa.dictionary(pa.int8(), pa.string()), few_texts),
    "binary": Kind(pa.binary(), st.just(b"a")),
    "null": Kind(pa.null(), st.none()),
    "bool": Kind(pa.bool_(), st.booleans()),
    "int8": Kind(pa.int8(), few_integers),
    "int64": Kind(pa.int64(), few_integers | st.sampled_from([2**63 - 1, -(2**63)])),
    "uint32": Kind(pa.uint32(), few_integers | st.just(2**32 - 1)),
    "uint64": Kind(pa.uint64(), few_integers | st.just(2**64 - 1)),
    "half": Kind(pa.float16(), st.floats(width=16)),
    "float": Kind(pa.float32(), floats),
    "double": Kind(pa.float64(), floats | st.just(0.1)),
    "decimal": Kind(pa.decimal128(9, 2), decimals),
    "whole decimal": Kind(pa.decimal128(20, 0), st.integers(0, 2**64).map(Decimal)),
    "date": Kind(pa.date32(), st.dates()),
    "floats": Kind(pa.list_(pa.float64()), st.lists(st.none() | floats, max_size=3)),
    "decimals": Kind(pa.list_(pa.decimal128(9, 2)), st.lists(st.none() | decimals, max_size=3)),
    "fixed list": Kind(pa.list_(pa.float32(), 2), st.lists(floats, min_size=2, max_size=2)),
    "texts": Kind(pa.list_(pa.string()), st.lists(few_texts, max_size=2)),
}
NUMBERS = ("int8", "int64", "uint32", "uint64", "half", "float", "double", "decimal")
OTHERS = ("null", "bool", "binary", "string", "broken string", "dictionary", "date")
LISTS = ("floats", "decimals", "fixed list", "texts", "null", "double")
NOT_BROKEN = (*NUMBERS, *(kind for kind in OTHERS if kind != "broken string"))
"""Of columns that not every command reads: in a line, such a text makes the whole unreadable."""
COLUMNS = {
    "prompt_id": ("string", "large string", "broken string", "dictionary", "whole decimal",
                  "floats", *NUMBERS, *OTHERS),
    "reward": (*NUMBERS, *OTHERS),
    "pvar": NOT_BROKEN,
    "num_tokens": NOT_BROKEN,
    "reward_gap": ("double", "bool"),
    "rewards": LISTS,
    "scores": LISTS,
    "prompt": ("string", "null"),
    "other": tuple(sorted(KINDS.keys() - {"broken string"})),
}  # fmt: skip


class Column(NamedTuple):
    """A column of a generated table."""

    name: str
    type: pa.DataType
    values: list[Any]


@st.composite
def tables(draw: st.DrawFn) -> list[Column]:
    """Columns of one length; most tables have ids and rewards that can be used."""
    num_rows = draw(st.integers(1, 6))
    usual = {"prompt_id": "string", draw(st.sampled_from(["reward", "rewards", "pvar"])): "double"}
    if "rewards" in usual:
        usual["rewards"] = "floats"
    more = draw(st.lists(st.sampled_from(sorted(COLUMNS)), max_size=3, unique=True))
    kinds = usual | {name: draw(st.sampled_from(COLUMNS[name])) for name in more}
    columns = []
    for name, kind in kinds.items():
        has_nulls = kind != "fixed list" and draw(st.booleans())  # pyarrow cannot read those
        values = KINDS[kind].values | (st.none() if has_nulls else st.nothing())
        drawn = draw(st.lists(values, min_size=num_rows, max_size=num_rows))
        columns.append(Column(name, KINDS[kind].type, drawn))
    return draw(st.permutations(columns))


def write_parquet(path: Path, columns: list[Column]) -> None:
    arrays = [array(column) for column in columns]
    names = [column.name for column in columns]
    pq.write_table(pa.Table.from_arrays(arrays, names), path)


def array(column: Column) -> pa.Array:
    if NOT_UTF8 not in column.values or column.type == pa.binary():
        return pa.array(column.values, column.type)
    values = [value.encode() if isinstance(value, str) else value for value in column.values]
    options = pc.CastOptions(target_type=column.type, allow_invalid_utf8=True)
    return pa.array(values, pa.binary()).cast(options=options)


def write_lines(path: Path, columns: list[Column]) -> None:
    rows = zip(*(column.values for column in columns), strict=True)
    names = [column.name for column in columns]
    path.write_bytes(b"".join(line(names, columns, row) for row in rows))


def line(names: list[str], columns: list[Column], row: tuple[Any, ...]) -> bytes:
    fields = [
        json.dumps(name).encode() + b":" + to_json(column, value)
        for name, column, value in zip(names, columns, row, strict=True)
    ]
    return b"{" + b",".join(fields) + b"}\n"


def to_json(column: Column, value: Any) -> bytes:
    if isinstance(value, bytes) and column.type == pa.string():
        return b'"' + value + b'"'
    return json.dumps(value, default=number, ensure_ascii=False).encode()


def number(value: Any) -> Any:
    """A decimal as a number, a date as text; for bytes a value that is of no use either."""
    if isinstance(value, Decimal):
        return int(value) if value.as_tuple().exponent == 0 else float(value)
    return {} if isinstance(value, bytes) else value.isoformat()


Command = Callable[[Path, Path], None]
COMMANDS: dict[str, Command] = {
    "variance": lambda path, out: variance(path, out=out / "out.jsonl", as_json=True),
    "select": lambda path, out: select(
        path, fraction=0.5, out=out / "out.jsonl", rows=out / f"rows{path.suffix}", as_json=True
    ),
    "select by gap": lambda path, out: select(
        path, strategy="reward_gap", tokens=9, out=out / "out.jsonl", as_json=True
    ),
    "reliability": lambda path, _: reliability(path, as_json=True),
}


def outcome(command: Command, path: Path) -> tuple[str, ...]:
    """What the command prints and writes, or its error."""
    printed = io.StringIO()
    with TemporaryDirectory() as folder:
        try:
            with redirect_stdout(printed):
                command(path, Path(folder))
        except PvarError as error:
            return type(error).__name__, comparable(str(error), path)
        written = [
            repr([row.fields for row in rows_of(file) if isinstance(row, Row)])
            for file in sorted(Path(folder).iterdir())
        ]
    return comparable(printed.getvalue(), path), *written


def rows_of(path: Path) -> list[Row | BadRow]:
    is_chosen = path.stem == "rows"  # their values are those of the input, in its format
    try:
        return [
            row._replace(fields={"prompt_id": row.fields.get("prompt_id")})
            if is_chosen and isinstance(row, Row)
            else row
            for row in read_rows(path)
        ]
    except InputError:  # nothing was chosen
        return []


def comparable(text: str, path: Path) -> str:
    """The text without the file's name, and without values that JSON does not have."""
    return text.replace(str(path), "FILE").replace("b'a'", "{}")


@pytest.mark.parametrize("command", COMMANDS)
@settings(max_examples=EXAMPLES // len(COMMANDS))
@given(tables())
def test_both_formats_give_the_same(command: str, columns: list[Column]) -> None:
    with TemporaryDirectory() as folder:
        lines, parquet = Path(folder) / "table.jsonl", Path(folder) / "table.parquet"
        write_lines(lines, columns)
        write_parquet(parquet, columns)
        assert outcome(COMMANDS[command], parquet) == outcome(COMMANDS[command], lines)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["prompt_id", "reward", "other"])
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path, command: str, name: str) -> None:
    names = ["prompt_id", "reward", "other", name]
    columns = [Column(each, pa.int64(), [1, 2]) for each in names]
    write_lines(tmp_path / "table.jsonl", columns)
    write_parquet(tmp_path / "table.parquet", columns)
    for path in (tmp_path / "table.jsonl", tmp_path / "table.parquet"):
        with pytest.raises(InputError, match=f"'{name}'"):
            COMMANDS[command](path, tmp_path)


ROWS = [
    {"prompt_id": "a", "reward": 1.0},
    {"prompt_id": "a", "reward": 2.0},
    {"prompt_id": None, "reward": 3.0},
    {"reward": 4.0},
    {"prompt_id": "b"},
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_row_without_id_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / f"rows.{kind}"
    write_rows(path, ROWS)
    for command in (variance, select):
        arguments = {"fraction": 1.0} if command is select else {}
        command(path, as_json=True, **arguments)
        summary = json.loads(capsys.readouterr().out)
        assert summary["prompts"] == 2
        assert summary["rows_rejected"] == {"no_prompt_id": 2}
        assert summary["first_problem"] == "row 3: there is no prompt_id"
    variance(path, as_json=True)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rewards"], summary["rewards_missing"]) == (2, 1)


@pytest.mark.skipif(not CASE.exists(), reason="the shared cases are not on this machine")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_reported_tables_with_null_ids_give_the_same(command: str) -> None:
    found = [outcome(COMMANDS[command], CASE / name) for name in ("r.jsonl", "r.parquet")]
    assert found[0] == found[1]
