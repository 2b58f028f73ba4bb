"""`pvar lineage`: trace a model back to its data, and data forward to its models."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.tree import Tree

    from tasks.engine.lineage import Step


def lineage(
    reference: str, /, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> None:
    """Show what a model version or artifact was made from, and what was made from it.

    Parameters
    ----------
    reference
        `models:/name/3`, `models:/name@champion`, or an artifact or its first characters:
        `train/ab12…`.
    as_json
        Print one JSON object instead of two trees.
    """
    from flows.model_lineage import trace
    from flows.wiring import connect

    made_from, made_into = trace(reference, connect())
    if as_json:
        both = {"made_from": made_from.model_dump(), "made_into": made_into.model_dump()}
        sys.stdout.write(json.dumps(both, ensure_ascii=False) + "\n")
        return
    from rich.tree import Tree

    from flows.console import console

    for title, step in (("made from", made_from), ("made into", made_into)):
        tree = Tree(f"{step.ref}, {title}" if step.branches else f"{step.ref}, {title}: nothing")
        _grow(tree, step)
        console().print(tree, highlight=False, soft_wrap=True)


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
