"""`pvar history`: who moved the champion, when and why; and all versions' results, by exam."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from flows.promotions import MoveWithResults
    from flows.version_results import VersionResults


def history(
    model: str,
    /,
    *,
    versions: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Show every move of a model's champion, newest last, or the results of all its versions.

    Parameters
    ----------
    model
        Name of the registered model.
    versions
        Show the results of every version instead, promoted or not: one table for each exam and how
        it was answered and judged. Only results in one table are comparable.
    as_json
        Print a JSON list instead of tables.
    """
    from flows.promotions import read_history
    from flows.version_results import by_curve, version_results
    from flows.wiring import connect

    registry = connect().registry
    moves = read_history(registry, model)  # also refuses a model that does not exist
    results = version_results(registry.versions(model)) if versions else []
    if as_json:
        rows = [each.as_row() for each in results] if versions else list(map(_move_row, moves))
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
        return
    from flows.console import console

    if versions:
        for curve in by_curve(results):
            console().print(_curve_table(curve))
    elif moves:
        console().print(_moves_table(moves))
    else:
        console().print(f"{model} has had no champion yet", highlight=False)


def _move_row(move: "MoveWithResults") -> dict[str, object]:
    return {
        **move.move.model_dump(mode="json"),
        **move.results._asdict(),
        "exam": move.exam,
        "has_files": move.has_files,
    }


def _moves_table(moves: "list[MoveWithResults]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("", "when (UTC)", "from", "to", "win rate", "exam", "who", "why", box=None)
    for move, results, exam, has_files in moves:
        table.add_row(
            str(move.number),
            f"{move.at:%Y-%m-%d %H:%M}",
            _version(move.from_version),
            _version(move.to_version) + ("" if has_files else " (its files are gone)"),
            str(results),
            _short(exam),
            Text(move.by),
            Text(f"{move.kind.replace('_', ' ')}: {move.reason}"),
        )
    return table


def _curve_table(curve: "list[VersionResults]") -> "Table":
    """One exam: its versions, oldest first."""
    from rich.table import Table
    from rich.text import Text

    exam, conditions = curve[0].curve
    title = "exam not recorded: these results are not comparable"
    if exam is not None:
        title = f"exam {exam}, conditions {conditions or 'not recorded'}"
    several = len({each.first_model for each in curve} - {None}) > 1
    columns = ["version", "gate", "against its opponent", "against the first model", "ability"]
    columns += ["since the first", "look"]
    has_divergence = any(each.divergence_since_first is not None for each in curve)
    has_fresh = any(each.fresh.agreement is not None for each in curve)
    columns += ["divergence (nats)"] * has_divergence + ["fresh pairs"] * has_fresh
    table = Table(*columns, box=None, title=title, title_justify="left")
    for each in curve:
        table.add_row(
            str(each.version),
            each.gate or "–",
            str(each.against_opponent),
            Text(f"{each.against_first}{_of_model(each.first_model) if several else ''}"),
            "–" if each.ability is None else f"{each.ability:.1%}",
            _points(each.ability_change_since_first),
            Text(each.look or "–"),
            *[_nats(each.divergence_since_first)] * has_divergence,
            *[str(each.fresh)] * has_fresh,
        )
    return table


def _of_model(first_model: str | None) -> str:
    """Which first model, where there are several: those results are not comparable."""
    return "" if first_model is None else f" [{first_model[:14]}]"


def _points(change: float | None) -> str:
    return "–" if change is None else f"{100 * change:+.1f} points"


def _nats(divergence: float | None) -> str:
    return "–" if divergence is None else f"{divergence:.3g}"


def _short(exam: str | None) -> str:
    return "–" if exam is None else exam[:8]


def _version(version: int | None) -> str:
    return "–" if version is None else str(version)
