"""`pvar retrain`: run one retraining now, as the schedule does."""

from contextlib import ExitStack
from functools import cache, partial
from typing import TYPE_CHECKING

from flows.commands.options import JsonOption, PresetOption, SetOption
from flows.commands.rules import RuleOption
from flows.exit_codes import code_of_result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.retraining import RetrainResult


def retrain(
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    rule: RuleOption = (),
    as_json: JsonOption = False,
) -> int:
    """Read new incoming files, and run the pipeline on them if there is enough new data.

    The exit code is 4 if a batch waits or pauses after an outage, else 3 if the gate of a run did
    not pass. No new data is no error: 0.

    ```console
    pvar retrain my.yaml --rule min_new_pairs=200
    ```

    Parameters
    ----------
    preset
        The pipeline to run: name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    rule
        Retraining rules as key=value: incoming, min_new_pairs, max_days_between_runs, max_attempts,
        exam, min_exam_prompts, reserve_share, audit_every, pairs, replay, hold, fresh_share.
    as_json
        Print one JSON object.
    """
    from flows.commands.rules import retrain_config
    from infra.presets import load_config

    config = retrain_config(load_config(preset, set_), rule)

    from flows.console import print_json, show_progress
    from flows.server import has_configured_server

    # Most looks find nothing to do; without a configured server they start none.
    with show_progress(), ExitStack() as stack:
        is_configured, start_once = has_configured_server(), cache(partial(_start_server, stack))
        if is_configured:
            start_once()
        from flows.past_runs import past_run
        from flows.retraining import retrain as look
        from flows.retraining import retrain_once
        from flows.run_record import load_run
        from flows.wiring import connect

        if is_configured:
            result = look(config)
        else:
            result = retrain_once(config, connect(), before_flows=start_once)
        store = connect().store
        gates = {run: past_run(load_run(store, run), store).gate_passed for run in result.runs}

    if as_json:
        print_json({**result.model_dump(mode="json"), "gate_passed": gates})
    else:
        _print(result, gates)
    return code_of_retraining(result, gates)


def _start_server(stack: ExitStack) -> None:
    from flows.temporary_server import temporary_server

    stack.enter_context(temporary_server())


def code_of_retraining(result: "RetrainResult", gates: "Mapping[str, bool | None]") -> int:
    """The exit code; `gates` has what the gate of each run decided."""
    return code_of_result(
        waits=bool(result.waiting or result.postponed), gate_passed=False not in gates.values()
    )


def _print(result: "RetrainResult", gates: "Mapping[str, bool | None]") -> None:
    from flows.console import console

    def say(text: str) -> None:
        console().print(text, highlight=False, markup=False, soft_wrap=True)

    for key in result.quarantined:
        say(f"quarantined: {key}")
    for sentence in (*result.postponed, *result.waiting):
        say(sentence)
    for run in result.runs:
        gate = {None: "", True: ", gate passed", False: ", gate failed"}[gates[run]]
        say(f"run {run} succeeded{gate}; its report: pvar report {run}")
    if result.audited is not None:
        say(result.audited)
    say(f"batch {result.batch}: {'; '.join(result.reasons)}" if result.batch else result.reasons[0])
