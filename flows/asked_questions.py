"""The questions of a stage `annotate` that a user names."""

from flows.run_record import find_run, load_run
from pvar.errors import InputError
from pvar.ports import Store
from tasks.engine.lineage import is_artifact
from tasks.stages.annotate import ANNOTATE, asked_digests


def asked_digest(store: Store, text: str) -> str:
    """The digest of the stage that asks: by its first characters, with or without `annotate/`, or
    by the run that waits for it. InputError unless there is exactly one."""
    asked = asked_digests(store)
    text = text.removeprefix(f"{ANNOTATE.name}/")
    if text in asked or is_artifact(f"{ANNOTATE.name}/{text}"):
        return text
    named = find_run(store, text, asked)
    if named in asked:
        return named
    nodes = {node.name: node.artifact for node in load_run(store, named).nodes}
    if ANNOTATE.name not in nodes:
        raise InputError(f"run {named} asks people nothing: its configuration has no `annotate`")
    return nodes[ANNOTATE.name].partition("/")[2]
