"""`pvar winrate`: compute AlpacaEval 2's and Arena-Hard's scores offline, from judgment files."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.commands.alpaca_eval_report import Run, figures
from flows.commands.arena_hard_report import (
    Scoring,
    leaderboard,
    parse_controls,
    print_leaderboard,
    to_json,
)
from flows.commands.benchmark_files import read_calibration, row_file
from flows.commands.options import JsonOption
from flows.commands.summary import print_summary
from pvar.errors import InputError
from pvar.evaluation.alpaca_eval_files import read_annotations, read_outputs
from pvar.evaluation.alpaca_eval_score import LEADERBOARD_JUDGE
from pvar.evaluation.arena_hard_files import read_categories, read_games, read_styles
from pvar.evaluation.style import Version

app = App(
    name="winrate",
    help="Compute the scores of AlpacaEval 2 and Arena-Hard from files of judgments.",
    version_flags=(),  # --version is the benchmark's here
)

InputPath = Annotated[Path, Parameter(allow_leading_hyphen=True)]
"""A file, or `-` for standard input."""


@app.command
def alpaca_eval(
    *,
    annotations: InputPath,
    outputs: Path,
    baseline: Path,
    calibration: Path | None = None,
    judge: str | None = None,
    seed: int = 0,
    as_json: JsonOption = False,
) -> None:
    """Compute AlpacaEval 2's win rates of one model; rates are in percent.

    ```console
    pvar winrate alpaca-eval --annotations a.json --outputs o.json --baseline b.json
    ```

    Parameters
    ----------
    annotations
        The judge's preferences: JSON, JSONL or Parquet with instruction, generator_1 (the
        baseline), generator_2 (the model) and preference (1 baseline, 2 model, null not judged);
        `-` reads JSON lines from standard input.
    outputs
        The model's answers: instruction, output, and generator, which must name the judged model.
    baseline
        The baseline's answers to all instructions: instruction, output, and index if the file is
        not in the order of the evaluation set.
    calibration
        Folder with instruction_difficulty.csv and df_gamed.csv, which are not downloaded. Required
        for the length-controlled win rate.
    judge
        Name of the judge; by default the annotations' column annotator, or without one the
        leaderboard's judge. The length-controlled win rate is comparable with the leaderboard only
        for the leaderboard's judge.
    seed
        Seed of the bootstrap interval.
    as_json
        Print one JSON object.
    """
    run = Run(
        annotations=read_annotations(row_file(annotations)),
        outputs=read_outputs(row_file(outputs)),
        baseline=read_outputs(row_file(baseline)),
        calibration=None if calibration is None else read_calibration(calibration),
    )
    judge = judge or run.annotations.judge or LEADERBOARD_JUDGE
    title = f"AlpacaEval 2: {run.annotations.model}"
    print_summary(title, figures(run, judge=judge, seed=seed), as_json=as_json)


@app.command
def arena_hard(
    *,
    games: InputPath,
    version: Version,
    style: str | None = None,
    metadata: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    questions: Path | None = None,
    seed: int = 0,
    as_json: JsonOption = False,
) -> None:
    """Compute Arena-Hard's scores of all models in a file, in percent against the baseline.

    ```console
    pvar winrate arena-hard --games judgments.jsonl --version v2.0
    ```

    Parameters
    ----------
    games
        Arena-Hard's model_judgment files, or rows with question_id or uid, model, baseline (v0.1:
        gpt-4-0314 if absent) and games, a list of two objects with a score (A>>B, A>B, A=B, B>A,
        B>>A or null); `-` reads standard input.
    version
        Rules of v0.1 (2024) or v2.0.
    style
        Style control: length, markdown or length,markdown. Requires --metadata.
    metadata
        Style counts of the models and the baseline: files of answers with metadata, or tables
        with model, question_id, token_len, header_count, list_count and bold_count.
    questions
        The requested questions (uid or question_id, category); by default all questions of the
        version.
    seed
        Seed of the bootstrap intervals.
    as_json
        Print a JSON list.
    """
    wanted = read_categories(row_file(questions)) if questions is not None else None
    judged = read_games(row_file(games), wanted)
    controls = parse_controls(style)
    if bool(controls) != bool(metadata):
        raise InputError(
            "--style and --metadata belong together: the control needs the counts, and the counts "
            "are for nothing else"
        )
    scoring = Scoring(
        version, controls, read_styles([row_file(path) for path in metadata]), wanted, seed
    )
    results = leaderboard(judged, scoring)
    if as_json:
        objects = [to_json(result, controls) for result in results]
        sys.stdout.write(json.dumps(objects, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        print_leaderboard(results)
