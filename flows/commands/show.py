"""`pvar show`: show the plan of a configuration without running it."""

from flows.commands.options import PresetOption, SetOption


def show(*, preset: PresetOption = None, set_: SetOption = ()) -> None:
    """Show each node of a configuration, its artifact, and whether the artifact is complete.

    Parameters
    ----------
    preset
        Name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    """
    from rich.table import Table

    from flows.console import console
    from flows.judge_remarks import epoch_remark
    from flows.pinning import pin
    from flows.wiring import connect
    from infra.presets import load_config
    from pvar.benchmark_config import JudgedBenchmark
    from tasks.engine.progress import progress_of
    from tasks.graph import plan_nodes

    config = load_config(preset, set_)
    wiring = connect()
    table = Table("node", "stage", box=None)
    table.add_column("artifact", overflow="fold")  # show the whole digest, for copying
    for name in ("state", "rows"):
        table.add_column(name)
    lines = []
    pinned = pin(config, wiring)
    for node in plan_nodes(pinned).values():
        progress = progress_of(wiring.store, node.keys)
        table.add_row(
            node.name, node.stage.name, node.keys.root, progress.state, progress.rows or ""
        )
        if progress.how_to_go_on is not None:
            lines.append(f"{node.name} {progress.state}; to go on: {progress.how_to_go_on}")
    console().print(table)
    for benchmark in pinned.benchmarks:
        if isinstance(benchmark, JudgedBenchmark):
            remark = epoch_remark(wiring.store, benchmark.judge, benchmark.judge_epoch)
            lines += [f"{benchmark.name}: {remark}"] if remark else []
    for line in lines:
        console().print(line, highlight=False, markup=False, soft_wrap=True)
    console().print(f"store: {wiring.store.uri}", highlight=False, soft_wrap=True)
