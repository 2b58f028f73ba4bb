"""`pvar registry`: make a lost MLflow registry again."""

import sys

from cyclopts import App

app = App(name="registry", help="Make a lost MLflow registry again.")


@app.command
def rebuild(model: str | None = None, /) -> None:
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
    """
    from flows.console import console
    from flows.registry_rebuild import rebuild_registry
    from flows.wiring import connect

    def say(line: str) -> None:
        console().print(line, highlight=False, soft_wrap=True, markup=False)

    found = rebuild_registry(connect(), model)
    for rebuilt in found:
        for line in rebuilt.lines():
            say(line)
    if any(rebuilt.gone for rebuilt in found):
        sys.exit(1)
