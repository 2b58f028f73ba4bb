"""`pvar rollback`: make an earlier version the champion again."""

from typing import Annotated

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption


def rollback(
    model: str,
    /,
    *,
    reason: str,
    to: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an earlier version the champion, and record who did it and why.

    ```console
    pvar rollback pvar --reason 'rude answers'
    pvar rollback pvar --to 3 --reason 'the one of spring'
    ```

    Parameters
    ----------
    model
        Name of the registered model.
    reason
        Reason, which is recorded in the history.
    to
        Version to return to (default: the champion before the current one).
    as_json
        Print the move as one JSON object, as `pvar history --json` has it.
    """
    from flows.console import console, print_json
    from flows.wiring import connect

    move = connect().registry.roll_back(model, to, reason=reason)
    if as_json:
        print_json(move.model_dump(mode="json"))
        return
    was = "nothing" if move.from_version is None else f"version {move.from_version}"
    console().print(
        f"{model}: champion is version {move.to_version}, it was {was}; "
        f"move {move.number} by {move.by}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
