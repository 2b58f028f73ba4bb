"""Runs configurations and writes what came out, one JSON file each, without digests and times.

    python -m tests.differential.snapshot FOLDER [NAME…]

    runs/1/nodes/select/row_counts     rows in, rows out, rejected by reason
    runs/1/nodes/select/summary        the figures
    runs/1/nodes/select/tables/pairs   row id → columns that are not empty
    runs/1/nodes/train/models          parameters, norm and sum of a file of weights
    runs/1/caches, gradients, report, incoming
    promotion                          versions with their tags, the champion, its moves

Floats have six significant digits. Digests of artifacts and models, and paths, are replaced by what
they name. With OMP_NUM_THREADS=1 two runs on one machine write the same bytes.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from pydantic import JsonValue

from tests.differential import adapter
from tests.differential.configurations import CONFIGURATIONS
from tests.differential.faults import Killed
from tests.differential.vocabulary import BASE, Configuration, Run, Settings, SourceRow

Snapshot = dict[str, JsonValue]

SIGNIFICANT_DIGITS = 6


class Outcome(NamedTuple):
    """How the nodes of a run ended."""

    states: dict[str, str]
    """Node → made, reused, waiting or failed."""
    failure: Exception | None
    """What the product raised."""


def take(configuration: Configuration, home: Path, models: Mapping[str, str]) -> Snapshot:
    """Run a configuration in an empty home; `models` are those of `adapter.save_models`."""
    bench = adapter.open_bench(home)
    aliases = {reference: f"{{model:{name}}}" for name, reference in models.items()}
    runs: Snapshot = {}
    for number, run in enumerate(configuration.runs, start=1):
        runs[str(number)] = _run(run, str(number), bench, models, aliases)
    snapshot: Snapshot = {"runs": runs}
    if any(run.goal == "promotion" for run in configuration.runs):
        snapshot["promotion"] = adapter.read_promotion(bench)
    aliases[str(home)] = "{home}"
    normalised = normalise(snapshot, aliases)
    assert isinstance(normalised, dict)
    return normalised


def _run(
    run: Run, name: str, bench: adapter.Bench, models: Mapping[str, str], aliases: dict[str, str]
) -> Snapshot:
    """One run; adds to the aliases what its digests stand for."""
    taken: Snapshot = {}
    base = {key: value for key, value in BASE.items() if key not in run.by_default}
    settings = _with_models({**base, **run.changes}, models) | _sources(run, bench.home)
    if run.arriving:
        files = {file: _lines(rows).encode() for file, rows in run.arriving.items()}
        incoming = adapter.take_up_files(bench, files)
        settings["ingest.source"] = incoming.source
        taken["incoming"] = incoming.facts
        aliases |= incoming.alias
    planned, outcome = _run_nodes(run, bench, settings)
    for alias, meaning in planned.aliases(name).items():
        aliases.setdefault(alias, meaning)
    complete = [
        node for node, state in outcome.states.items() if state not in ("failed", "waiting")
    ]
    failure = outcome.failure
    taken["error"] = None if failure is None else type(failure).__name__
    taken["nodes"] = {
        node: {
            "state": outcome.states[node],
            **_describe(adapter.read_node(bench, planned, node)),
        }
        for node in complete
    }
    taken["caches"] = {
        cache: _describe(content) for cache, content in adapter.read_caches(bench).items()
    }
    taken["report"] = adapter.read_report(
        bench, planned, outcome.states, None if failure is None else str(failure)
    )
    if run.num_gradients:
        taken["gradients"] = adapter.read_gradients(bench, settings, run.num_gradients)
    return taken


def _run_nodes(run: Run, bench: adapter.Bench, settings: Settings) -> tuple[adapter.Plan, Outcome]:
    """Make the nodes one after the other, anew from the first after each death."""
    deaths, states = list(run.deaths), dict[str, str]()
    while True:
        planned = adapter.plan(bench, settings)
        for node in planned.until(run.goal):
            try:
                state = adapter.run_node(
                    bench,
                    planned,
                    node,
                    faults=run.faults,
                    trains=run.trains,
                    death=deaths[0] if deaths else None,
                )
            except Killed:
                del deaths[0]
                break
            except adapter.Failure as failure:
                return planned, Outcome({**states, node: "failed"}, failure)
            states.setdefault(node, state)
        else:
            if deaths:
                raise RuntimeError(f"nobody put an object {deaths[0]}: the run was not killed")
            return planned, Outcome(states, None)


def _with_models(settings: Mapping[str, JsonValue], models: Mapping[str, str]) -> Snapshot:
    """The settings with the references that `model:NAME` stands for."""

    def resolve(value: JsonValue) -> JsonValue:
        match value:
            case str() if value.startswith("model:"):
                return models[value.removeprefix("model:")]
            case dict():
                return {key: resolve(inner) for key, inner in value.items()}
            case list():
                return [resolve(inner) for inner in value]
            case _:
                return value

    return {key: resolve(value) for key, value in settings.items()}


def _sources(run: Run, home: Path) -> Snapshot:
    """The settings that name the run's files, which are written."""
    source = home / "prompts.jsonl"
    source.write_text(_lines(run.source))
    settings: Snapshot = {"ingest.source": str(source)}
    if run.benchmark:
        benchmark = home / "benchmark.jsonl"
        benchmark.write_text(_lines([{"instruction": text} for text in run.benchmark]))
        settings["ingest.decontaminate_against"] = [str(benchmark)]
    return settings


def _lines(rows: Sequence[SourceRow]) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def _describe(content: adapter.Content) -> Snapshot:
    """The parts of an artifact that there are, by the kind of its files."""
    described: Snapshot = {
        "row_counts": dict(content.row_counts),
        "summary": dict(content.summary),
        "files": list[JsonValue](sorted(content.files)),
    }
    tables: Snapshot = {}
    documents: Snapshot = {}
    models: Snapshot = {}
    for name, paths in content.files.items():
        match Path(name):
            case Path(suffix=".parquet", stem=stem):
                tables[stem] = _table(stem, paths)
            case Path(suffix=".safetensors"):
                models[name] = _weights(paths[0])
            case Path(suffix=".json", parent=Path(name="")):
                documents[name] = json.loads(paths[0].read_text())
    parts: Snapshot = {"tables": tables, "documents": documents, "models": models}
    return described | {name: part for name, part in parts.items() if part}


def _table(name: str, paths: Sequence[Path]) -> Snapshot:
    """Row id → its columns, in the order of the ids. Rows of one id are numbered as they stand."""
    keys = adapter.ROW_KEYS.get(name, ())
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for path in paths:
        for row in pq.read_table(path).to_pylist():
            rows.setdefault(" ".join(_id_part(row[key]) for key in keys), []).append(row)
    return {
        f"{row_id} #{number}" if number > 1 or not row_id else row_id: _body(row, keys)
        for row_id, those in sorted(rows.items())
        for number, row in enumerate(those, start=1)
    }


def _id_part(value: object) -> str:
    """Text that sorts as the value does."""
    return f"{value:05d}" if isinstance(value, int) else str(value)


def _body(row: Mapping[str, Any], keys: Sequence[str]) -> dict[str, JsonValue]:
    """What the id does not say. None and empty lists are left out: an empty column is not seen."""
    return {
        column: value
        for column, value in row.items()
        if column not in keys and column not in adapter.TIMES and value not in (None, [])
    }


def _weights(path: Path) -> Snapshot:
    """What tells two models apart."""
    from safetensors.torch import load_file

    tensors = [tensor.double() for tensor in load_file(path).values()]
    return {
        "num_tensors": len(tensors),
        "num_parameters": sum(tensor.numel() for tensor in tensors),
        "norm": sum(float(tensor.square().sum()) for tensor in tensors) ** 0.5,
        "sum": sum(float(tensor.sum()) for tensor in tensors),
    }


def normalise(value: JsonValue, aliases: Mapping[str, str]) -> JsonValue:
    """Rounded, and with meanings instead of digests and paths."""
    match value:
        case float():
            return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if value == value else "NaN"
        case str():
            return _named(value, aliases)
        case dict():
            return {key: normalise(inner, aliases) for key, inner in value.items()}
        case list():
            return [normalise(inner, aliases) for inner in value]
        case _:
            return value


def _named(text: str, aliases: Mapping[str, str]) -> str:
    for alias in sorted(aliases, key=len, reverse=True):
        text = text.replace(alias, aliases[alias])
    return text


def to_json(snapshot: Snapshot) -> str:
    """One line for what holds no mapping: a row, a summary."""
    return "".join(_to_lines(snapshot, "")) + "\n"


def _to_lines(value: JsonValue, indent: str) -> Iterator[str]:
    if not isinstance(value, dict) or not any(isinstance(inner, dict) for inner in value.values()):
        yield json.dumps(value, ensure_ascii=False)
        return
    yield "{"
    for number, (key, inner) in enumerate(value.items()):
        yield f"{',' if number else ''}\n{indent} {json.dumps(key, ensure_ascii=False)}: "
        yield from _to_lines(inner, indent + " ")
    yield f"\n{indent}}}"


def main(arguments: Sequence[str]) -> None:
    """Write the snapshots of all configurations, or of those that are named."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    out, *names = arguments
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"running {adapter.SOURCE}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        models = adapter.save_models(Path(work) / "models")
        for name in names or CONFIGURATIONS:
            started = time.monotonic()
            snapshot = take(CONFIGURATIONS[name], Path(work) / "homes" / name, models)
            (folder / f"{name}.json").write_text(to_json(snapshot))
            print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
