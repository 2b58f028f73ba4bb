"""`pvar history`: who moved the champion, when and why, and what audits found; and all versions'
results, by exam."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands.options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from flows.audit_records import AuditRecord
    from flows.promotions import MoveWithResults
    from flows.version_results import VersionResults


def history(
    model: str,
    /,
    *,
    versions: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonOption = False,
) -> None:
    """Show every move of a model's champion, newest last, and what audits of it found on the
    reserve exam; or the results of all its versions.

    ```console
    pvar history pvar --versions
    ```

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
    from flows.audit_records import read_audits
    from flows.console import console, print_json
    from flows.promotions import read_history
    from flows.version_results import by_curve, version_results
    from flows.wiring import connect

    wiring = connect()
    registry = wiring.registry
    moves = read_history(registry, model)  # also refuses a model that does not exist
    audits = read_audits(wiring.store, model)
    results = version_results(registry.versions(model)) if versions else []
    if as_json:
        found = [_move_row(each, audits) for each in moves]
        rows = [each.as_row() for each in results] if versions else found
        print_json(rows)
        return
    if versions:
        for curve in by_curve(results):
            console().print(_curve_table(curve))
    elif moves:
        console().print(_moves_table(moves))
        if audits:
            console().print(_audits_table(audits))
    else:
        console().print(f"{model} has had no champion yet", highlight=False)


def _move_row(move: "MoveWithResults", audits: "list[AuditRecord]") -> dict[str, object]:
    """A move, and the audits of the champion that it made, before the next move."""
    return {
        **move.move.model_dump(mode="json"),
        **move.results._asdict(),
        "exam": move.exam,
        "has_files": move.has_files,
        "audits": [
            audit.model_dump(mode="json", exclude={"nodes", "model_name"})
            for audit in audits
            if audit.move == move.move.number
        ],
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


def _audits_table(audits: "list[AuditRecord]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    title = "audits: the champion against the first model on the reserve exam"
    columns = ("when (UTC)", "version", "exam", "results", "who")
    table = Table(*columns, box=None, title=title, title_justify="left")
    for audit in audits:
        if audit.results is not None:
            table.add_row(
                f"{audit.started_at:%Y-%m-%d %H:%M}",
                str(audit.version),
                _short(audit.results.exam),
                Text(audit.results.sentence),
                Text(audit.by),
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
