"""`pvar retrain`: run one retraining now, as the schedule does."""

from flows.commands.options import PresetOption, SetOption
from flows.commands.rules import RuleOption


def retrain(*, preset: PresetOption = None, set_: SetOption = (), rule: RuleOption = ()) -> None:
    """Read new incoming files, and run the pipeline on them if there is enough new data.

    Parameters
    ----------
    preset
        The pipeline to run: name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    rule
        Retraining rules as key=value: incoming, min_new_pairs, max_days_between_runs, max_attempts,
        exam, min_exam_prompts, reserve_share, audit_every, pairs, replay, hold, fresh_share.
    """
    from flows.commands.rules import retrain_config
    from infra.presets import load_config

    config = retrain_config(load_config(preset, set_), rule)

    from flows.console import console, show_progress
    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.retraining import retrain as look

        result = look(config)

    def say(text: str) -> None:
        console().print(text, highlight=False, markup=False, soft_wrap=True)

    for key in result.quarantined:
        say(f"quarantined: {key}")
    for sentence in (*result.postponed, *result.waiting):
        say(sentence)
    for run in result.runs:
        say(f"run {run} succeeded; its report: pvar report {run}")
    if result.audited is not None:
        say(result.audited)
    say(f"batch {result.batch}: {'; '.join(result.reasons)}" if result.batch else result.reasons[0])
