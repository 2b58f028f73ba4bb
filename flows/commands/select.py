"""`pvar select`: select the prompts to train on, from a file of rewards or preference variances."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import ValidationError

from flows.commands.candidate_table import NUMBER_COLUMNS, CandidateTable, read_candidates
from flows.commands.chosen_rows import refuse_own_input, refuse_rows_target, write_chosen_rows
from flows.commands.options import JsonOption
from flows.commands.summary import Figure, known, print_summary
from infra.faults import describe_faults
from infra.row_files import write_rows
from pvar.errors import ConfigError
from pvar.selection import Budget, Selection, StrategyName
from pvar.selection import select as select_prompts


def select(
    input: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    strategy: StrategyName = "top",
    fraction: float | None = None,
    count: int | None = None,
    tokens: int | None = None,
    threshold: float | None = None,
    seed: int = 0,
    scale: float | None = None,
    out: Path | None = None,
    rows: Path | None = None,
    as_json: JsonOption = False,
) -> None:
    """Select prompts by a strategy, within a budget.

    ```console
    pvar select rewards.jsonl --strategy top --fraction 0.1 --rows selected.jsonl
    ```

    Parameters
    ----------
    input
        JSONL or Parquet file (.jsonl may be .gz); `-` reads JSON lines from standard input.
        The file has rewards, from which PVar is computed, in the forms that `pvar variance` reads,
        or one row per prompt with prompt_id and pvar. With pvar, some strategies and budgets also
        need reward_gap, reward_variance, disagreement, entropy, rip, implicit_gap, implicit_loss
        (of selective), lossdiff_irm or num_tokens.
    strategy
        Selection strategy. all selects every prompt; random is the control.
    fraction
        Budget: fraction of the prompts.
    count
        Budget: number of prompts.
    tokens
        Budget: maximum sum of num_tokens.
    threshold
        Minimum PVar, for the strategy threshold.
    seed
        Seed of the strategies that draw at random.
    scale
        Reward scale τ, in units of the rewards (default: 1).
    out
        Output file with the selected prompt ids and their measure, best first: .jsonl, .jsonl.gz
        or .parquet.
    rows
        Output file with the rows of the selected prompts as they are in the input, in its order
        and format: .jsonl or .jsonl.gz for JSON lines, .parquet for Parquet.
    as_json
        Print the summary as one JSON object.
    """
    budget = _budget(strategy, fraction, count, tokens)
    _refuse_threshold(strategy, threshold)
    _refuse_targets(input, out, rows)
    table = read_candidates(input, strategy, scale)
    selection = select_prompts(table.candidates, strategy, budget, seed=seed, threshold=threshold)
    if out is not None:
        write_rows(out, _rows(selection))
    figures = _figures(table, selection)
    if rows is not None:
        num_rows = write_chosen_rows(input, rows, selection.prompt_ids, NUMBER_COLUMNS)
        figures.append(Figure("rows_written", "Rows written", num_rows))
    print_summary("Selection", figures, as_json=as_json)


def _refuse_threshold(strategy: StrategyName, threshold: float | None) -> None:
    if threshold is not None and strategy != "threshold":
        raise ConfigError(
            f"the strategy {strategy} has no threshold; leave --threshold out, "
            "or choose --strategy threshold"
        )


def _refuse_targets(source: Path, out: Path | None, rows: Path | None) -> None:
    """Raise ConfigError if a file would be overwritten that is still needed."""
    if rows is not None:
        refuse_rows_target(source, rows)
        if out is not None and out.absolute() == rows.absolute():
            raise ConfigError(f"--out and --rows are both {out}; name two files")
    if out is not None:
        refuse_own_input(source, out, "--out")


def _budget(
    strategy: StrategyName, fraction: float | None, count: int | None, tokens: int | None
) -> Budget:
    if (fraction, count, tokens) == (None, None, None):
        if strategy not in ("all", "threshold"):
            raise ConfigError(
                f"the strategy {strategy} needs a budget; give --fraction, --count or --tokens"
            )
        return Budget(fraction=1.0)
    if strategy == "all":
        raise ConfigError("the strategy all takes every prompt; leave the budget out")
    try:
        return Budget(fraction=fraction, count=count, tokens=tokens)
    except ValidationError as error:
        raise ConfigError("; ".join(describe_faults(error, Budget))) from error


def _figures(table: CandidateTable, selection: Selection) -> list[Figure]:
    return [
        Figure("pvar_origin", "PVar", table.origin),
        Figure("rows_rejected", "Rows left out", table.row_counts.rejected),
        Figure("first_problem", "The first of them", table.first_problem),
        Figure("strategy", "Strategy", selection.strategy),
        Figure("budget", "Budget", selection.budget.model_dump(exclude_none=True)),
        Figure("prompts", "Prompts", selection.row_counts.rows_in),
        Figure("selected", "Selected", selection.row_counts.rows_out),
        Figure("left_out", "Left out", selection.row_counts.rejected),
        Figure("measure", "Measure", selection.measure),
        Figure("cut_value", "Measure of the last one selected", selection.cut_value),
        Figure("ties_at_cut", "Prompts with exactly that measure", _ties(selection)),
    ]


def _ties(selection: Selection) -> dict[str, int] | None:
    if selection.cut_value is None:
        return None
    return {"selected": selection.num_tied_selected, "left_out": selection.num_tied_left_out}


def _rows(selection: Selection) -> Iterator[dict[str, object]]:
    for prompt_id, value in zip(
        selection.prompt_ids.tolist(), selection.values.tolist(), strict=True
    ):
        yield {"prompt_id": prompt_id, selection.measure: known(value)}
