"""`pvar lineage`: trace a model back to its data, and data forward to its models."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands.options import JsonOption

if TYPE_CHECKING:
    from rich.tree import Tree

    from flows.withdrawn_versions import TrainedOn
    from tasks.engine.lineage import Step


def lineage(
    reference: str | None = None,
    /,
    *,
    withdrawn: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a model version or artifact was made from, and what was made from it.

    ```console
    pvar lineage models:/pvar@champion
    pvar lineage train/ab12
    ```

    Parameters
    ----------
    reference
        `models:/name/3`, `models:/name@champion`; an artifact or its first characters:
        `train/ab12…`; or a run (`latest`), for the last artifact that it completed.
    withdrawn
        Show instead which model versions were trained on prompts that `pvar forget` withdrew.
    as_json
        Print one JSON object instead of two trees, or with --withdrawn a list.
    """
    from flows.console import console, print_json
    from flows.model_lineage import trace
    from flows.wiring import connect
    from pvar.errors import InputError

    if withdrawn:
        _print_withdrawn(as_json=as_json)
        return
    if reference is None:
        raise InputError(
            "nothing to trace; give models:/name/3, models:/name@champion, stage/digest or a run, "
            "or --withdrawn"
        )
    made_from, made_into = trace(reference, connect())
    if as_json:
        print_json({"made_from": made_from.model_dump(), "made_into": made_into.model_dump()})
        return
    from rich.tree import Tree

    for title, step in (("made from", made_from), ("made into", made_into)):
        tree = Tree(f"{step.ref}, {title}" if step.branches else f"{step.ref}, {title}: nothing")
        _grow(tree, step)
        console().print(tree, highlight=False, soft_wrap=True)


def _print_withdrawn(*, as_json: bool) -> None:
    from flows.console import console, print_json
    from flows.wiring import connect
    from flows.withdrawn_versions import versions_trained_on
    from tasks.retraining.erasures import erased_pairs
    from tasks.retraining.withdrawals import withdrawn_ids

    wiring = connect()
    ids = withdrawn_ids(wiring.store)
    trained = versions_trained_on(ids, wiring, erased_pairs(wiring.store)) if ids else []
    if as_json:
        print_json([each.model_dump() for each in trained])
        return
    console().print(f"{len(ids)} prompts are withdrawn", highlight=False)
    for each in trained:
        console().print(_trained_text(each), highlight=False, markup=False, soft_wrap=True)
    if ids and not trained:
        console().print("no registered version was trained on them", highlight=False)


def _trained_text(trained: "TrainedOn") -> str:
    parts = []
    if trained.prompt_ids:
        parts.append(f"trained on {len(trained.prompt_ids)} of them")
    if trained.inherited_prompt_ids:
        parts.append(f"began from a model trained on {len(trained.inherited_prompt_ids)}")
    if trained.unknown:
        parts.append(f"not known for {', '.join(trained.unknown)}, whose pairs are gone")
    return f"{trained.version}: {'; '.join(parts)}"


def _grow(tree: "Tree", step: "Step") -> None:
    from rich.text import Text

    for branch in step.branches:
        notes: list[str] = (
            [] if branch.state in ("complete", "version", "outside") else [branch.state]
        )
        if branch.is_repeated:
            notes.append("shown above")
        note = f"  ({', '.join(notes)})" if notes else ""
        _grow(tree.add(Text(f"{branch.role}: {branch.ref}{note}")), branch)
