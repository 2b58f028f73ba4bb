"""`pvar run`: run the whole pipeline."""

from typing import TYPE_CHECKING

from flows.commands.options import JsonOption, PresetOption, SetOption

if TYPE_CHECKING:
    from flows.run_record import RunRecord
    from flows.wiring import Wiring


def run(preset: PresetOption = None, *, set_: SetOption = (), as_json: JsonOption = False) -> int:
    """Run the pipeline. Complete artifacts are reused, and missing ones are made.

    If this configuration was run and all of its artifacts are there, the earlier run is shown:
    nothing is started or recorded, unless a Prefect server is configured.

    The exit code is 3 if the gate did not pass, and 4 if a stage waits.

    ```console
    pvar run my.yaml
    pvar run --preset demo --set select.strategy=random --set train.seed=1
    ```

    Parameters
    ----------
    preset
        Name of a preset (see `pvar schema --presets`) or path to a YAML file.
    set_
        Changes to the preset as key=value, for example `--set select.strategy=random`.
    as_json
        Print one JSON object: state, results, the stages with their artifacts and figures.
    """
    from infra.presets import load_config

    config = load_config(preset, set_)  # before slow imports, so that errors are reported at once

    from flows.console import console, show_log, show_progress
    from flows.preflight import refuse_early
    from flows.server import has_configured_server
    from flows.wiring import connect

    with show_log():
        refuse_early(config, connect())
    if not has_configured_server():
        from flows.complete_runs import complete_run

        wiring = connect()
        with show_log():
            complete = complete_run(config, wiring)
        if complete is not None:
            if not as_json:
                console().print("all of it is complete: nothing was started or recorded")
            return print_result(complete, wiring, as_json=as_json)

    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.pipeline import pipeline
        from flows.run_record import load_run

        run_id = pipeline(config, preset=preset)
        wiring = connect()
        record = load_run(wiring.store, run_id)
    return print_result(record, wiring, as_json=as_json)


def print_result(record: "RunRecord", wiring: "Wiring", *, as_json: bool) -> int:
    """Print the results of a run; the exit code that they mean."""
    from flows.console import console, print_json
    from flows.exit_codes import code_of_result
    from flows.outcome import describe, outcome_json
    from flows.past_runs import past_run

    found = past_run(record, wiring.store)
    if as_json:
        print_json(outcome_json(record, found, wiring))
    else:
        describe(record, wiring, console())
    return code_of_result(waits=record.waiting_node is not None, gate_passed=found.gate_passed)
