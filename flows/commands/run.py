"""`pvar run`: run the whole pipeline."""

from flows.commands.options import PresetOption, SetOption


def run(*, preset: PresetOption = None, set_: SetOption = ()) -> None:
    """Run the pipeline. Complete artifacts are reused, and missing ones are made.

    If this configuration was run and all of its artifacts are there, the earlier run is shown:
    nothing is started or recorded, unless a Prefect server is configured.

    Parameters
    ----------
    preset
        Name of a preset (see `pvar schema --presets`) or path to a YAML file.
    set_
        Changes to the preset as key=value, for example `--set select.strategy=random`.
    """
    from infra.preconditions import inline_stages, refuse_missing
    from infra.presets import load_config

    config = load_config(preset, set_)  # before slow imports, so that errors are reported at once
    refuse_missing(config, inline_stages(config), ask=False)

    from flows.console import console, show_log, show_progress
    from flows.outcome import describe
    from flows.server import has_configured_server
    from flows.wiring import connect

    if not has_configured_server():
        from flows.complete_runs import complete_run

        wiring = connect()
        with show_log():
            complete = complete_run(config, wiring)
        if complete is not None:
            console().print("all of it is complete: nothing was started or recorded")
            describe(complete, wiring, console())
            return

    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.pipeline import pipeline
        from flows.run_record import load_run

        run_id = pipeline(config, preset=preset)
        wiring = connect()
        record = load_run(wiring.store, run_id)
    describe(record, wiring, console())
