"""`pvar benchmark`: answer and judge the benchmarks by any models, without training."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands.options import JsonOption, PresetOption, SetOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from flows.benchmark_table import BenchmarkRow, BenchmarkTable
    from pvar.config import PipelineConfig


NOT_USED = ("sample", "evaluate", "score", "train", "reward_training", "label_audit", "runtime")
"""Keys that only training and its comparison need."""


def benchmark(
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    model: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    name: Annotated[tuple[str, ...], Parameter(name="--benchmark", negative=())] = (),
    out: Path | None = None,
    as_json: JsonOption = False,
) -> None:
    """Run the benchmarks of a configuration for any models, and print one table.

    Answers and verdicts are kept: a model that took a benchmark before, in a run or here, is
    neither asked nor judged again. If all of it is there, nothing is started or recorded, unless a
    Prefect server is configured.

    ```console
    pvar benchmark my.yaml --model champion --model Qwen/Qwen2.5-0.5B-Instruct
    pvar benchmark my.yaml --benchmark alpaca_eval --json
    ```

    Parameters
    ----------
    preset
        Name of a preset or path to a YAML file, with `benchmarks`.
    set_
        Changes to the preset as key=value.
    model
        A model reference (Hub id, path, s3://, models:/name@alias), `champion`, or `outputs:FILE`
        for answers in the benchmark's own form that were made elsewhere. May be repeated. By
        default, the preset's `benchmark_models`, or else the champion (the starting policy if no
        model is promoted).
    name
        Name of a benchmark of the preset. May be repeated. By default, all of them.
    out
        Folder for the projects' own files of answers and judgments. By default, a folder of the
        run in PVAR_HOME.
    as_json
        Print a JSON list with one object per benchmark and model. Rates are in percent.
    """
    from infra.preconditions import find_problems, inline_stages, refuse
    from infra.presets import load_config
    from pvar.benchmark_takers import with_models

    config = load_config(preset, set_)
    taken = with_models(config, model, name)

    def refuse_missing(*, ask: bool) -> None:
        stages = inline_stages(config) - {"evaluate"}
        refuse(find_problems(taken, stages, ask=ask, unneeded=NOT_USED))

    refuse_missing(ask=False)

    from flows.benchmark_table import complete_table, exported_files
    from flows.console import console, show_log
    from flows.server import has_configured_server
    from flows.wiring import connect

    wiring, table = connect(), None
    if not has_configured_server():
        with show_log():
            table = complete_table(config, model, name, wiring)
    if table is None:
        refuse_missing(ask=True)
        table = _run(config, model, name)
    folder = out or wiring.settings.home / "benchmarks" / table.run
    files = [exported_files(row, wiring, folder.absolute()) for row in table.rows]
    if as_json:
        objects = [row_to_json(row, paths) for row, paths in zip(table.rows, files, strict=True)]
        sys.stdout.write(json.dumps(objects, ensure_ascii=False, allow_nan=False) + "\n")
        return
    print_rows(table.rows, console())
    console().print(f"files: {folder.absolute()}", highlight=False, soft_wrap=True)


def _run(
    config: "PipelineConfig", models: "Sequence[str]", benchmarks: "Sequence[str]"
) -> "BenchmarkTable":
    from flows.console import show_progress
    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.benchmarking import benchmark as run

        return run(config, models=list(models), benchmarks=list(benchmarks))


def print_rows(rows: "Sequence[BenchmarkRow]", console: "Console") -> None:
    """Print a table for people."""
    from rich.table import Table

    from flows.benchmark_table import shown_cells

    table = Table(
        *("Benchmark", "Model", "Score, %", "95 % interval", "Length-controlled"),
        *("Length", "Coverage", "Judge", "USD"),
    )
    for row in rows:
        table.add_row(*shown_cells(row))
    console.print(table)


def row_to_json(row: "BenchmarkRow", files: list[Path]) -> dict[str, object]:
    """The row with its stable names."""
    score = row.score
    shared = {
        "benchmark": row.benchmark,
        "kind": row.kind,
        "model": row.model,
    }
    counts = {
        "clustered_ci_lower": score.clustered_ci_lower,
        "clustered_ci_upper": score.clustered_ci_upper,
        "avg_length": score.mean_length_characters,
        "num_questions": score.num_questions,
        "num_judged": score.num_judged,
        "coverage": score.coverage,
        "judge": row.judge,
        "judge_epoch": row.judge_epoch,
        "usd": row.usd,
        "files": [str(path) for path in files],
    }
    match row.kind:
        case "alpaca_eval":
            own = {
                "win_rate": score.score,
                "standard_error": score.standard_error,
                "discrete_win_rate": score.discrete_win_rate,
                "length_controlled_winrate": score.length_controlled_win_rate,
                "lc_standard_error": score.length_controlled_standard_error,
                "lc_comparable": row.lc_comparable,
            }
        case "arena_hard":
            own = {
                "score": score.score,
                "ci_lower": score.ci_lower,
                "ci_upper": score.ci_upper,
                "style_controlled_score": score.style_controlled_score,
                "style_ci_lower": score.style_ci_lower,
                "style_ci_upper": score.style_ci_upper,
            }
        case _:
            own = {"score": score.score, "standard_error": score.standard_error}
    return {**shared, **own, **counts}
