"""`pvar approve`: decide whether a version becomes the champion."""

from typing import Annotated

from cyclopts import Parameter

from flows.commands.options import JsonOption


def approve(
    model: str,
    version: int | None = None,
    /,
    *,
    note: str,
    decline: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonOption = False,
) -> None:
    """Approve a version that passed the gate and waits for approval, or decline it.

    An approved version becomes the champion at once. The first decision on a version counts. Start
    the waiting run again to complete it.

    ```console
    pvar approve pvar 3 --note 'better in every category'
    pvar approve latest --note 'too long' --decline
    ```

    Parameters
    ----------
    model
        Name of the registered model; or alone, the run that waits: its id, the first characters of
        it, or `latest`.
    version
        The version that waits for approval (`promote.mode: approval`).
    note
        The reason. It is stored with the decision, and in the history if the version is approved.
    decline
        Decline the version. It stays registered and does not become the champion.
    as_json
        Print the decision as one JSON object.
    """
    from flows.console import console, print_json
    from flows.promotions import decide, version_of_run
    from flows.wiring import connect
    from pvar.errors import PromotionError

    wiring = connect()
    if version is None:
        model, version = version_of_run(model, wiring)
    kept, is_new = decide(wiring, model, version, approved=not decline, note=note)
    if not is_new:
        raise PromotionError(
            f"{model} version {version} was already {kept.sentence} ({kept.at:%Y-%m-%d %H:%M} "
            "UTC), and the first decision counts; to change the champion anyway: "
            f"pvar rollback {model} --to VERSION --reason TEXT"
        )
    if as_json:
        print_json({"model": model, "version": version, **kept.model_dump(mode="json")})
        return
    done = f"version {version} is declined" if decline else f"champion is version {version}"
    console().print(f"{model}: {done}", highlight=False, markup=False)
