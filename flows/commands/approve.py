"""`pvar approve`: decide whether a version becomes the champion."""

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
    """Approve a version that passed the gate and waits for approval, or decline it.

    An approved version becomes the champion at once. The first decision on a version counts. Start
    the waiting run again to complete it.

    Parameters
    ----------
    model
        Name of the registered model.
    version
        The version that waits for approval (`promote.mode: approval`).
    note
        The reason. It is stored with the decision, and in the history if the version is approved.
    decline
        Decline the version. It stays registered and does not become the champion.
    """
    from flows.console import console
    from flows.promotions import decide
    from flows.wiring import connect
    from pvar.errors import PromotionError

    kept, is_new = decide(connect(), model, version, approved=not decline, note=note)
    if not is_new:
        raise PromotionError(
            f"{model} version {version} was already {kept.sentence} ({kept.at:%Y-%m-%d %H:%M} "
            "UTC), and the first decision counts; to change the champion anyway: "
            f"pvar rollback {model} --to VERSION --reason TEXT"
        )
    done = f"version {version} is declined" if decline else f"champion is version {version}"
    console().print(f"{model}: {done}", highlight=False, markup=False)
