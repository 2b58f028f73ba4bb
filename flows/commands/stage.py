"""`pvar stage`: run one stage of a configuration."""

from flows.commands.options import PresetOption, SetOption
from pvar.placement import StageName


def stage(
    name: StageName,
    /,
    *,
    node: str | None = None,
    preset: PresetOption = None,
    set_: SetOption = (),
) -> None:
    """Run one stage. Its input artifacts must be complete.

    Parameters
    ----------
    name
        Name of the stage.
    node
        One node of the stage, as listed by `pvar show`. By default, all nodes of the stage run.
    preset
        Name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    """
    from infra.preconditions import refuse_missing
    from infra.presets import load_config

    config = load_config(preset, set_)
    refuse_missing(config, (name,))

    from flows.console import console, show_log, show_progress
    from flows.server import has_configured_server

    def say(text: str) -> None:
        console().print(text, highlight=False, markup=False, soft_wrap=True)

    if not has_configured_server():
        from flows.complete_runs import complete_nodes
        from flows.wiring import connect

        with show_log():
            complete = complete_nodes(config, name, node, connect())
        if complete is not None:
            for each in complete:
                say(f"{each.name}: {each.keys.root} reused")
            return

    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.stages import STAGE_FLOWS

        results = STAGE_FLOWS[name](config=config, node=node)
    for result in results:
        if result.waiting is not None:
            how = result.waiting.sentence
        else:
            how = "reused" if result.state == "reused" else f"made in {result.seconds:.1f} s"
        say(f"{result.node}: {result.artifact} {how}")
