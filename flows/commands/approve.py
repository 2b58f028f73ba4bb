"""`pvar approve`: a person says that a version may become the champion."""


def approve(model: str, version: int, /, *, note: str) -> None:
    """Make a version the champion that passed the gate and awaits approval.

    Parameters
    ----------
    model
        Name of the registered model.
    version
        The version that `promote.mode: approval` registered.
    note
        Why it may: kept in the history.
    """
    from flows import promotions
    from flows.console import console
    from flows.wiring import connect

    promotions.approve(connect().registry, model, version, note=note)
    console().print(f"{model}: champion is version {version}", highlight=False, markup=False)
