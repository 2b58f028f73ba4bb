"""`pvar audit`: the champion against the first model on the reserve exam."""

import sys

from flows.commands.options import JsonOption, PresetOption, SetOption


def audit(
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    exam: int | None = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the champion with the first model on the reserve exam, and record the look.

    The reserve exam is `evaluate.reserve_prompts`, or what retraining kept apart when it froze its
    exam (`reserve_share`). No promotion is decided by it. The same champion is not asked twice.

    ```console
    pvar audit my.yaml
    ```

    Parameters
    ----------
    preset
        The pipeline of the model: name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    exam
        Number of the retraining's exam whose reserve is asked, if evaluate.reserve_prompts is
        empty. By default, the newest one.
    as_json
        Print the record as JSON.
    """
    from infra.presets import load_config

    config = load_config(preset, set_)

    from flows.console import console, show_progress
    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.auditing import audit as run
        from flows.auditing import audit_sentence, require_reserve, with_frozen_reserve
        from flows.wiring import connect

        store = connect().store
        if exam is not None and not config.evaluate.reserve_prompts:
            require_reserve(exam, store)
        record = run(with_frozen_reserve(config, store, exam))
    if as_json:
        sys.stdout.write(record.model_dump_json() + "\n")
        return
    text = f"{audit_sentence(record)} (by {record.by}, {record.started_at:%Y-%m-%d %H:%M} UTC)"
    console().print(text, highlight=False, markup=False, soft_wrap=True)
