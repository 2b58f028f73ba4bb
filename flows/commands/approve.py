"""`pvar approve`: a person says whether a version may become the champion."""

from typing import Annotated

from cyclopts import Parameter


def approve(
    model: str,
    version: int,
    /,
    *,
    note: str,
    decline: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Make a version the champion that passed the gate and waits for approval, or decline it.

    The first decision on a version counts. The run that waits for it goes on when it is started
    again.

    Parameters
    ----------
    model
        Name of the registered model.
    version
        The version that `promote.mode: approval` registered.
    note
        Why: kept with the decision, and in the history of an approved version.
    decline
        Do not make it the champion; it stays registered.
    """
    from flows.console import console
    from flows.promotions import decide
    from flows.wiring import connect
    from pvar.errors import PromotionError

    kept, is_new = decide(connect(), model, version, approved=not decline, note=note)
    if not is_new:
        raise PromotionError(
            f"{model} version {version} was already {kept.sentence} ({kept.at:%Y-%m-%d %H:%M} "
            "UTC), and the first decision counts; to move the champion all the same: "
            f"pvar rollback {model} --to VERSION --reason TEXT"
        )
    done = f"version {version} is declined" if decline else f"champion is version {version}"
    console().print(f"{model}: {done}", highlight=False, markup=False)
