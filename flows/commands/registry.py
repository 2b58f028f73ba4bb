"""`pvar registry`: make a lost MLflow registry again."""

from cyclopts import App

from flows.commands.options import JsonOption
from flows.exit_codes import DONE, ERROR

app = App(name="registry", help="Make a lost MLflow registry again.")


@app.command
def rebuild(model: str | None = None, /, *, as_json: JsonOption = False) -> int:
    """Register the versions that the store knows again, with numbers, tags, aliases and history.

    For an MLflow whose database was lost: the store has the models, the decisions on them and every
    move of the champion. What MLflow still has stays; missing files of a version are uploaded.

    ```console
    pvar registry rebuild
    ```

    Parameters
    ----------
    model
        Name of the registered model (default: every model that the store has a decision on).
    as_json
        Print a JSON list.
    """
    from flows.console import console, print_json
    from flows.registry_rebuild import rebuild_registry
    from flows.wiring import connect

    def say(line: str) -> None:
        console().print(line, highlight=False, soft_wrap=True, markup=False)

    found = rebuild_registry(connect(), model)
    if as_json:
        print_json([rebuilt._asdict() for rebuilt in found])
    for rebuilt in () if as_json else found:
        for line in rebuilt.lines():
            say(line)
    return ERROR if any(rebuilt.gone for rebuilt in found) else DONE
