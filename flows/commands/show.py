"""`pvar show`: show the plan of a configuration, or the stages of a run, without running it."""

import re
from typing import TYPE_CHECKING, NamedTuple

from flows.commands.options import JsonOption, PresetOption, SetOption

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flows.wiring import Wiring
    from pvar.config import PipelineConfig


class _ShownNode(NamedTuple):
    """A node as it is in the store now."""

    node: str
    artifact: str
    state: str
    rows: str | None
    how_to_go_on: str | None
    """What a person does, if it waits."""


class _Shown(NamedTuple):
    nodes: list[_ShownNode]
    remarks: list[str]


def show(preset: PresetOption = None, *, set_: SetOption = (), as_json: JsonOption = False) -> None:
    """Show each node of a configuration, its artifact, and whether the artifact is complete.

    `pvar lineage` and others find an artifact by its name here, by the first characters of it, or
    by those of its digest.

    ```console
    pvar show my.yaml --set select.strategy=random
    pvar show latest
    ```

    Parameters
    ----------
    preset
        Name of a preset or path to a YAML file; or a run: its id, the first characters of it, or
        `latest`.
    set_
        Changes to the preset as key=value.
    as_json
        Print one JSON object instead of a table.
    """
    from flows.console import console, print_json
    from flows.wiring import connect
    from infra.presets import is_preset, load_config
    from pvar.errors import ConfigError

    if preset is not None and not is_preset(preset) and re.fullmatch(r"latest|\d[\w-]*", preset):
        if set_:
            raise ConfigError(f"--set changes a preset, and {preset} is a run; leave --set out")
        wiring = connect()
        shown = _of_run(preset, wiring)
    else:
        config = load_config(preset, set_)
        wiring = connect()
        shown = _of_config(config, wiring)
    if as_json:
        nodes = [each._asdict() for each in shown.nodes]
        print_json({"store": wiring.store.uri, "nodes": nodes, "remarks": shown.remarks})
        return
    _print(shown)
    console().print(f"store: {wiring.store.uri}", highlight=False, soft_wrap=True)


def _of_config(config: "PipelineConfig", wiring: "Wiring") -> _Shown:
    from flows.judge_remarks import epoch_remark
    from flows.pinning import pin
    from pvar.benchmark_config import JudgedBenchmark
    from tasks.graph import plan_nodes

    pinned = pin(config, wiring)
    nodes = plan_nodes(pinned).values()
    remarks = []
    for benchmark in pinned.benchmarks:
        if isinstance(benchmark, JudgedBenchmark):
            remark = epoch_remark(wiring.store, benchmark.judge, benchmark.judge_epoch)
            remarks += [f"{benchmark.name}: {remark}"] if remark else []
    return _Shown(_states([(node.name, node.keys.root) for node in nodes], wiring), remarks)


def _of_run(run: str, wiring: "Wiring") -> _Shown:
    from flows.run_record import INTERRUPTED, load_run

    record = load_run(wiring.store, run)
    failed, remarks = record.failed_node, [f"run {record.run}, preset {record.preset or '–'}"]
    if failed is not None:
        ended = INTERRUPTED if failed.was_interrupted else f"failed: {failed.error}"
        remarks.append(f"{failed.name} {ended}")
    nodes = _states([(node.name, node.artifact) for node in record.nodes], wiring)
    return _Shown(nodes, remarks)


def _states(nodes: "Iterable[tuple[str, str]]", wiring: "Wiring") -> list[_ShownNode]:
    from tasks.engine.artifact import ArtifactKeys
    from tasks.engine.progress import progress_of

    shown = []
    for name, artifact in nodes:
        stage, _, digest = artifact.partition("/")
        progress = progress_of(wiring.store, ArtifactKeys(stage, digest))
        shown.append(_ShownNode(name, artifact, *progress))
    return shown


def _print(shown: _Shown) -> None:
    from rich.table import Table

    from flows.console import console

    table = Table(box=None, pad_edge=False)
    table.add_column("node", overflow="fold")
    width = max((len(each.artifact) for each in shown.nodes), default=0)
    table.add_column("artifact", no_wrap=True, min_width=width)  # in one piece, for copying
    for name in ("state", "rows"):
        table.add_column(name)
    for each in shown.nodes:
        table.add_row(each.node, each.artifact, each.state, each.rows or "")
    console().print(table)
    goes_on = [
        f"{each.node} {each.state}; to go on: {each.how_to_go_on}"
        for each in shown.nodes
        if each.how_to_go_on is not None
    ]
    for line in (*goes_on, *shown.remarks):
        console().print(line, highlight=False, markup=False, soft_wrap=True)
