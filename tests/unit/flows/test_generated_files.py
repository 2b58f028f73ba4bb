"""Whatever a file holds, a command gives a result or one of our errors in one line.

Files are generated: rows near to those that each command reads, with values of other types, huge
and broken numbers and texts, columns that lack, are null or are there twice; as JSON lines, as a
JSON array, packed, and as Parquet; and then some of their bytes are changed.

`PVAR_FUZZ_EXAMPLES` is the number of files in all (tests/README.md).
"""

import gzip
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flows.commands import judge_agreement, judge_parse, queue, winrate
from flows.commands.ingest_check import ingest_check
from flows.commands.queue import write_queue
from flows.commands.reliability import reliability
from flows.commands.select import select
from flows.commands.variance import variance
from flows.withdrawn_prompts import read_ids
from infra.row_files import read_rows
from pvar.annotation_queue import QueuedPair
from pvar.errors import PvarError
from pvar.incoming_rows import batch_rows, inspect_rows, parse_row
from pvar.labelled_pairs import read_held_out_pairs
from pvar.records import Message
from pvar.selection import STRATEGIES

Rows = list[dict[str, Any]]
Command = Callable[[Path, Path, Mapping[str, Any]], object]

few = st.sampled_from
text = few(["a", "b", "Why?", "", " ", "\u2028", "\x00", "é", "{}"]) | st.text(max_size=5)
integer = few([0, 1, 2, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400])
real = few([0.0, 0.1, -1.0, 1.5, 1e308, -1e308, 5e-324]) | st.floats()
scalar = st.none() | st.booleans() | integer | real | text
anything = st.recursive(
    scalar,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(few(["role", "content", "score", "a"]), inner, max_size=3)
    ),
    max_leaves=5,
)
role = few(["user", "assistant", "system", "tool"])
messages = st.lists(
    st.fixed_dictionaries({"role": role, "content": text | anything}), min_size=1, max_size=3
)
prompt = text | messages
number = few([0.0, 0.5, 1.0, -2.0, 3, 1e308, -1e308]) | st.none()
scores = st.lists(number, max_size=5) | st.lists(few([0.0, 0.5, 1.0, 3]), min_size=4, max_size=6)
label = few(["A>>B", "A>B", "A=B", "B>A", "B>>A", None, "?"])
message = st.fixed_dictionaries({"content": st.fixed_dictionaries({"answer": text})})
count = st.integers(0, 9) | st.fixed_dictionaries(
    {"h1": st.integers(0, 9), "h2": st.integers(0, 3)}
)

REWARDS = {
    "prompt_id": few(["a", "b", "c"]),
    "reward": number,
    "pvar": few([0.0, 0.1, 0.25, None]),
    "num_tokens": few([1, 10, 2**40, 2**62]),
    "reward_gap": number,
    "reward_variance": number,
    "rewards": scores,
    "responses": st.lists(text, max_size=5),
    "prompt": prompt,
}
POOL = {
    "prompt": prompt,
    "instruction": text,
    "responses": few([["x", "y", "z"], ["x", "y", "x"], ["x", "", "z"]]),
    "rewards": st.lists(few([0.0, 0.5, 1.0, None]), min_size=3, max_size=3)
    | st.lists(real | number, min_size=3, max_size=3),
    "completions": st.lists(
        st.fixed_dictionaries({"response": text, "overall_score": number}), max_size=3
    ),
    "answers": st.lists(st.fixed_dictionaries({"answer": text, "rank": number}), max_size=3),
    "source": text,
}
PROMPTS = {
    "prompt": prompt,
    "chosen": prompt,
    "rejected": prompt,
    "completion": text,
    "label": st.booleans() | few([0, 1]),
    "answer": text | st.lists(text, max_size=2),
    "system": text,
    "messages": messages,
    "score_chosen": real,
    "tools": st.lists(anything, max_size=1),
    "weight": number,
    "prompt_id": few(["0123456789abcdef", "a"]),
    "source": text,
}
spoken = st.lists(
    st.fixed_dictionaries({"from": few(["human", "gpt", "system"]), "value": text | anything}),
    min_size=1,
    max_size=3,
)
vote = few(["answer_1", "answer-2", "1", "tie"]) | anything
FORMS = {
    "conversations": spoken | messages,
    "messages": spoken | messages,
    "chosen": text | few(["\n\nHuman: a\n\nAssistant: b"]) | spoken,
    "rejected": text | few(["\n\nHuman: a\n\nAssistant: c"]) | spoken,
    "kto_tag": st.booleans(),
    "instruction": text,
    "input": text | anything | st.fixed_dictionaries({"messages": messages}),
    "output": text,
    "history": st.lists(st.lists(text, min_size=2, max_size=2), max_size=2) | anything,
    "completions": st.lists(st.fixed_dictionaries({"response": text}), max_size=2),
    "preferred_output": messages,
    "non_preferred_output": messages,
    "fields": few([{"prompt": "a", "answer_1": "b", "answer_2": "c"}]) | anything,
    "responses": st.dictionaries(
        few(["q"]), st.lists(st.fixed_dictionaries({"value": vote}), max_size=2)
    ),
    "data": few([{"prompt": "a", "answer_1": "b", "answer_2": "c"}]) | anything,
    "annotations": st.lists(
        st.fixed_dictionaries(
            {"result": st.lists(st.fixed_dictionaries({"value": vote}), max_size=1)}
        ),
        max_size=2,
    ),
    "prompt": prompt,
}
ANNOTATIONS = {
    "instruction": few(["q1", "q2", "q3", "q4", "q5"]),
    "generator_1": few(["base"]),
    "generator_2": few(["mine"]),
    "preference": few([1, 2, 1.5, 1.0000001, None]),
    "output_2": text,
}
OUTPUTS = {
    "instruction": few(["q1", "q2", "q3", "q4", "q5"]),
    "output": text,
    "generator": few(["mine"]),
    "index": st.integers(0, 4),
}
GAMES = {
    "question_id": few(["h1", "h2", "c1"]),
    "uid": few(["h1", "h2", "c1"]),
    "model": few(["m", "n"]),
    "baseline": few(["gpt-4-0314", "o3"]),
    "games": st.lists(st.fixed_dictionaries({"score": label}), min_size=2, max_size=2),
    "category": few(["hard_prompt", "creative_writing"]),
    "metadata": st.fixed_dictionaries(
        {"token_len": st.integers(0, 99), "header_count": count, "list_count": count,
         "bold_count": count}
    ),
    "messages": st.lists(message, max_size=2),
}  # fmt: skip
ANSWERS = {
    "id": few(["p1", "p2"]),
    "preferred": few([1, 2, "tie", None, "1"]),
    "annotator": few(["ann", 7, ""]),
    "time": few(["2026-11-26T12:00:00", "2026-11-26T12:00:00Z", "0001-01-01T00:00:00+23:00", ""]),
    "annotations": st.lists(anything, max_size=2),
    "data": anything,
}
reward = few([0.0, 0.5, 1.0, 2.0]) | few([0.0, 0.5, 1.0, 2.0]) | real | number
PAIRS = {"chosen_reward": reward, "rejected_reward": reward}
VERDICTS = {"judgment": few(["[[A>B]]", "[[A]]", ""]) | text}

CORES: dict[str, list[tuple[str, ...]]] = {
    "kto_tag": [
        ("conversations",),
        ("instruction", "input", "output"),
        ("chosen", "rejected"),
        ("fields", "responses"),
        ("data", "annotations"),
        ("input", "preferred_output", "non_preferred_output"),
    ],
    "completions": [("prompt", "responses", "rewards"), ("instruction", "completions")],
    "chosen": [("prompt",), ("prompt", "chosen", "rejected"), ("prompt", "completion", "label")],
    "preference": [tuple(ANNOTATIONS)],
    "output": [tuple(OUTPUTS)],
    "games": [
        ("question_id", "model", "games"),
        ("uid", "model", "games", "baseline", "category", "metadata"),
    ],
    "preferred": [("id", "preferred", "annotator", "time"), ("annotations", "data")],
    "chosen_reward": [tuple(PAIRS)],
    "judgment": [tuple(VERDICTS)],
    "prompt_id": [
        ("prompt_id", "reward"),
        ("prompt_id", "rewards"),
        ("prompt_id", "pvar", "num_tokens", "reward_gap", "reward_variance"),
        ("prompt", "rewards"),
    ],
}
"""By the first of these columns that a table may have: columns that make a usable row together."""
KEYS = {"prompt_id": "id {}", "instruction": "q{}", "question_id": "h{}", "uid": "h{}", "id": "p{}"}

SCALES = few([None] * 8) | few([1.0, 0.01, 5e-324, 1e308, float("inf"), float("nan"), 0.0, -1.0])
SEEDS = few([0, 1, -1, 2**64])


@st.composite
def tables(draw: st.DrawFn, columns: Mapping[str, st.SearchStrategy[Any]]) -> Rows:
    """Rows with some of the columns; in some rows one lacks or is of another type."""
    names = draw(st.lists(few(sorted(columns)), min_size=1, unique=True))
    if draw(few([True, True, True, False])):
        core = draw(few(next(cores for name, cores in CORES.items() if name in columns)))
        names = list(dict.fromkeys([*core, *draw(few([[], [], names]))]))
    row_of = st.fixed_dictionaries({name: columns[name] for name in names})
    num_rows = draw(few([0, 1, 2, 5, 5, 5, 12, 24]))
    rows = draw(st.lists(row_of, min_size=num_rows, max_size=num_rows))
    if draw(st.booleans()):
        for place, row in enumerate(rows, start=1):
            row |= {name: KEYS[name].format(place) for name in names if name in KEYS}
    for _ in range(draw(few([0, 0, 0, 1, 2]))):
        if rows:
            row, name = draw(few(rows)), draw(few(names))
            row[name] = draw(anything)
            if draw(few([True, False])):
                del row[name]
    return rows


@st.composite
def files(draw: st.DrawFn, columns: Mapping[str, st.SearchStrategy[Any]]) -> tuple[str, bytes]:
    """A file's suffix and its bytes."""
    rows = draw(tables(columns))
    suffix = draw(few([".jsonl", ".jsonl", ".parquet", ".parquet", ".json", ".jsonl.gz"]))
    content = parquet(draw, rows) if suffix == ".parquet" else lines(draw, rows)
    if suffix.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    if draw(few([False] * 6 + [True])) and content:
        start = draw(st.integers(0, len(content)))
        length = draw(few([0, 1, 4, 1000]))
        content = content[:start] + draw(st.binary(max_size=4)) + content[start + length :]
    return suffix, content


def lines(draw: st.DrawFn, rows: Rows) -> bytes:
    escaped = draw(st.booleans())
    texts = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    whole = f"[{','.join(texts)}]" if draw(few([False, False, True])) else "\n".join(texts)
    return whole.encode("utf-8", draw(few(["surrogatepass", "replace"])))


TYPES = {
    bool: [pa.bool_()],
    int: [pa.int64(), pa.uint64(), pa.float32(), pa.decimal128(38, 0), pa.int8()],
    float: [pa.float64(), pa.float16(), pa.decimal128(38, 2)],
    str: [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
}


def parquet(draw: st.DrawFn, rows: Rows) -> bytes:
    """A table of the rows with such types as its values can have; texts of those that have none."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    arrays = [array(draw, [row.get(name) for row in rows]) for name in names]
    if names and draw(few([False] * 9 + [True])):
        names.append(names[0])
        arrays.append(arrays[0])
    file = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_arrays(arrays, names), file)
    except pa.ArrowNotImplementedError:  # a struct without fields
        pq.write_table(pa.table({"other": [1]}), file)
    return file.getvalue()


def array(draw: st.DrawFn, values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    known = TYPES.get(kinds.pop(), []) if len(kinds) == 1 else []
    kind = draw(st.none() | few(known)) if known else None
    if kind == pa.string() and draw(few([False, False, True])):
        return not_utf8(len(values))
    is_decimal = kind is not None and pa.types.is_decimal(kind)
    given = [None if v is None else Decimal(str(v)) for v in values] if is_decimal else values
    for attempt in (kind, None):
        with suppress(pa.ArrowException, OverflowError, ValueError, TypeError):
            return pa.array(given if attempt is not None else values, attempt)
    return pa.array([repr(value)[:20].encode("utf-8", "replace") for value in values], pa.binary())


def not_utf8(length: int) -> pa.Array:
    offsets = pa.array(range(length + 1), pa.int32()).buffers()[1]
    return pa.StringArray.from_buffers(length, offsets, pa.py_buffer(b"a\xff" * length))


def save(folder: Path, name: str, file: tuple[str, bytes]) -> Path:
    path = folder / f"{name}{file[0]}"
    path.write_bytes(file[1])
    return path


def outcome(call: Callable[[], object]) -> None:
    """Run it: a result, or an error of ours with one line that says something."""
    try:
        with redirect_stdout(io.StringIO()):
            call()
    except PvarError as error:
        said = str(error)
        assert len(said.splitlines()) == 1, said
        assert len(said) > 20, said


def budgets() -> st.SearchStrategy[dict[str, Any]]:
    number_of = few([1, 2, 2, 10**30, 0, -1])
    fraction = few([0.5, 0.5, 1.0, 0.0, float("nan"), 1e-300])
    return (
        st.fixed_dictionaries({"fraction": fraction})
        | st.fixed_dictionaries({"count": number_of})
        | st.fixed_dictionaries({"tokens": number_of})
        | st.just({})
    )


# --- commands on one file: the columns near to it, and the call ---


def _variance(path: Path, folder: Path, draw: Callable[[Any], Any]) -> None:
    variance(path, out=folder / draw(few(["o.jsonl", "o.parquet"])), scale=draw(SCALES))


def _calibrated(path: Path, folder: Path, draw: Callable[[Any], Any]) -> None:
    rewards = folder / "rewards.jsonl"
    rewards.write_text('{"prompt_id": 1, "reward": 1}\n{"prompt_id": 1, "reward": 2}\n')
    variance(rewards, scale_from=path, as_json=draw(st.booleans()))


def _select(path: Path, folder: Path, draw: Callable[[Any], Any]) -> None:
    select(
        path,
        strategy=draw(few(["top", "threshold", *STRATEGIES])),
        threshold=draw(few([None] * 5 + [0.1, -1.0, float("nan")])),
        seed=draw(SEEDS),
        scale=draw(SCALES),
        out=folder / draw(few(["o.jsonl", "o.parquet"])),
        rows=draw(st.none() | st.just(folder / f"rows{''.join(path.suffixes)}")),
        as_json=draw(st.booleans()),
        **draw(budgets()),
    )


def _reliability(path: Path, _: Path, draw: Callable[[Any], Any]) -> None:
    scale = draw(SCALES)
    reliability(path, scale=1.0 if scale is None else scale, splits=2, as_json=draw(st.booleans()))


def _export(path: Path, folder: Path, draw: Callable[[Any], Any]) -> None:
    queue.export(
        str(path),
        out=folder / "queue",
        budget=2,
        by=draw(few(["pvar_lower", "pvar", "disagreement", "entropy", "random"])),
        scale=draw(SCALES | st.just("spread")),
        as_json=draw(st.booleans()),
    )


def _import(path: Path, folder: Path, draw: Callable[[Any], Any]) -> None:
    asked = (Message("user", "Why?"),)
    pairs = [
        QueuedPair(each, f"{n}", asked, "web", "x", "y", "pvar", 0.1, 0.0, 1.0)
        for n, each in enumerate(["p1", "p2"])
    ]
    write_queue(folder / "queue", pairs)
    queue.import_answers(
        path,
        queue=folder / "queue",
        out=folder / draw(few(["o.jsonl", "o.parquet"])),
        votes=folder / "votes.jsonl",
    )


def _queue(path: Path, folder: Path, _: Callable[[Any], Any]) -> None:
    (folder / "q").mkdir()
    content = path.read_bytes()
    (folder / "q" / queue.PAIRS_FILE).write_bytes(content)
    queue.read_queue(folder / "q")


def _ingest(path: Path, _: Path, draw: Callable[[Any], Any]) -> None:
    """The rows as retraining takes them: each file, then the batch."""
    inspect_rows(read_rows(path), path.name)
    parsed = [
        parse_row(row, path.name, draw(st.none() | few(["source"]))) for row in read_rows(path)
    ]
    batch_rows(each for each in parsed if not isinstance(each, str))
    read_held_out_pairs(read_rows(path), path.name, "source", "source")


def _check(path: Path, _: Path, draw: Callable[[Any], Any]) -> None:
    form = draw(few(["auto"] * 8 + ["trl", "sharegpt", "llama_factory", "openai", "hh", "argilla"]))
    column = draw(few(["null", "null", "a", "input"]))
    changes = (f"ingest.format={form}", f"ingest.columns.prompt={column}")
    ingest_check(str(path), set_=changes, as_json=draw(st.booleans()))


def _arena_hard(path: Path, _: Path, draw: Callable[[Any], Any]) -> None:
    controlled = draw(few([{}, {"style": "length,markdown", "metadata": (path,)}]))
    winrate.arena_hard(games=path, version=draw(few(["v0.1", "v2.0"])), **controlled)


ONE_FILE = {
    "variance": (REWARDS, _variance),
    "variance --scale-from": (PAIRS, _calibrated),
    "select": (REWARDS, _select),
    "reliability": (REWARDS, _reliability),
    "queue export": (POOL, _export),
    "queue import": (ANSWERS, _import),
    "queue --asked": (ANSWERS | PROMPTS, _queue),
    "ingest": (PROMPTS, _ingest),
    "ingest-check": (FORMS, _check),
    "forget --ids": (PROMPTS, lambda path, *_: read_ids(path)),
    "judge-agreement": (PROMPTS, lambda path, *_: judge_agreement._read(path)),
    "judge-parse": (VERDICTS, lambda path, *_: judge_parse.arena_hard(path, version="v2.0")),
    "winrate arena-hard": (GAMES, _arena_hard),
}

EXAMPLES = int(os.environ.get("PVAR_FUZZ_EXAMPLES", "260"))
"""Generated files, over all commands."""
PER_COMMAND = settings(
    max_examples=-(-EXAMPLES // (len(ONE_FILE) + 1)),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes, and the files are small
)


@pytest.mark.parametrize("command", ONE_FILE)
@PER_COMMAND
@given(st.data())
def test_a_file_gives_a_result_or_one_clear_line(command: str, data: st.DataObject) -> None:
    columns, call = ONE_FILE[command]
    file = data.draw(files(columns))
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = save(folder, "input", file)
        outcome(lambda: call(path, folder, data.draw))


csvs = st.lists(
    st.lists(
        few(["0", "1", "0.5", "2", "3", "nan", "x", "", '"', "9" * 30]), min_size=4, max_size=4
    ),
    max_size=9,
)


@st.composite
def calibrations(draw: st.DrawFn) -> dict[str, bytes]:
    headings = {
        "instruction_difficulty.csv": few([",instruction_difficulty", "a", ""]),
        "df_gamed.csv": few(["preference,index,std_delta_len,instruction_difficulty", "a,b"]),
    }
    return {
        name: "\n".join([draw(heading), *(",".join(row) for row in draw(csvs))]).encode()
        + draw(few([b"", b"", b"\xff", b"\x00"]))
        for name, heading in headings.items()
    }


@PER_COMMAND
@given(files(ANNOTATIONS), files(OUTPUTS), files(OUTPUTS), st.none() | calibrations())
def test_files_of_alpaca_eval_give_a_result_or_one_clear_line(
    annotations: tuple[str, bytes],
    outputs: tuple[str, bytes],
    baseline: tuple[str, bytes],
    calibration: dict[str, bytes] | None,
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in (calibration or {}).items():
            (folder / file).write_bytes(content)
        arguments = {
            "annotations": save(folder, "annotations", annotations),
            "outputs": save(folder, "outputs", outputs),
            "baseline": save(folder, "baseline", baseline),
            "calibration": None if calibration is None else folder,
        }
        outcome(lambda: winrate.alpaca_eval(**arguments))
