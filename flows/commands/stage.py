"""`pvar stage`: run one stage of a configuration."""

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.commands.options import JsonOption, PresetOption, SetOption
from flows.exit_codes import code_of_result
from pvar.placement import StageName

if TYPE_CHECKING:
    from flows.stage_nodes import BlockedNode, StageResult
    from flows.wiring import Wiring
    from pvar.config import PipelineConfig


def stage(
    name: StageName,
    /,
    preset: PresetOption = None,
    *,
    node: str | None = None,
    set_: SetOption = (),
    as_json: JsonOption = False,
) -> int:
    """Run the nodes of one stage whose inputs are complete, and say what the others wait for.

    It runs in this process, wherever `runtime.placement` puts the stage. The exit code is 0 if a
    node was made or was complete, 3 if the gate did not pass, and 4 if all of them wait.

    ```console
    pvar stage sample my.yaml
    pvar stage score my.yaml --node score-vader
    ```

    Parameters
    ----------
    name
        Name of the stage.
    node
        One node of the stage. By default, all of them run. `pvar show` lists the nodes of a
        configuration: `score` has one for each reward model, such as score-vader, and `sample` has
        sample, answers-opponent and answers-challenger.
    preset
        Name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    as_json
        Print one JSON object: what was made or reused, with its figures, and what waits.
    """
    from infra.presets import load_config

    config = load_config(preset, set_)

    from flows.console import console, print_json, show_log
    from flows.preflight import pin_for, refuse_unmakeable
    from flows.stage_nodes import blocked_nodes, chosen_nodes, unblocked_nodes
    from flows.wiring import connect
    from tasks.graph import plan_nodes

    with show_log():
        wiring = connect()
        pinned = pin_for(config, (name,), wiring)
        can_run = unblocked_nodes(pinned, name, node, wiring)
        chosen = chosen_nodes(plan_nodes(pinned), name, node)
        refuse_unmakeable(pinned, can_run or chosen, wiring)
    results = _make(config, pinned, name, node, wiring) if can_run else []
    waiting = blocked_nodes(pinned, name, node, wiring)
    if as_json:
        made = [each.model_dump(mode="json") for each in results]
        print_json({"nodes": made, "waiting": [each._asdict() for each in waiting]})
        return code_of_stage(results)
    options = _options(preset, set_)
    for line in (*map(_of_result, results), *(_of_blocked(each, options) for each in waiting)):
        console().print(line, highlight=False, markup=False, soft_wrap=True)
    return code_of_stage(results)


def code_of_stage(results: "Sequence[StageResult]") -> int:
    """The exit code: whether all nodes wait, and what the gate decided if there is one."""
    return code_of_result(
        waits=all(result.waiting for result in results),
        gate_passed=all(result.summary.get("gate_passed", True) for result in results),
    )


def _make(
    config: "PipelineConfig",
    pinned: "PipelineConfig",
    name: str,
    node: str | None,
    wiring: "Wiring",
) -> "list[StageResult]":
    """Run the stage: as a flow run if a Prefect server is configured, else without Prefect."""
    from flows.console import show_log, show_progress
    from flows.server import has_configured_server
    from flows.stage_nodes import make_or_reuse, run_nodes_of

    if not has_configured_server():
        with show_log(), _ended_by_sigterm():
            return run_nodes_of(
                pinned, name, node, wiring, lambda each: make_or_reuse(each, pinned, wiring)
            )
    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.stages import stage_flow

        return stage_flow(name)(config=config, node=node)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the body by an exception, as Ctrl-C does: leases are released at once."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _of_result(result: "StageResult") -> str:
    if result.waiting is not None:
        how = result.waiting.sentence
    else:
        how = "reused" if result.state == "reused" else f"made in {result.seconds:.1f} s"
    return f"{result.node}: {result.artifact} {how}"


def _of_blocked(node: "BlockedNode", options: str) -> str:
    """What the node waits for, and the command that can run now."""
    first, *later = node.stages
    then = f" (then {', '.join(later)})" if later else ""
    return f"{node.node}: waits for {', '.join(node.inputs)}; run pvar stage {first}{options}{then}"


def _options(preset: str | None, changes: Sequence[str]) -> str:
    """The options of a command with the same configuration."""
    given = [] if preset is None else ["--preset", preset]
    for change in changes:
        given += ["--set", change]
    return f" {shlex.join(given)}" if given else ""
