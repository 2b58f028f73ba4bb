"""`pvar deploy`: register work pools, deployments and automations with a Prefect server."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.commands.options import JsonOption, PresetOption, SetOption
from flows.commands.rules import RuleOption

PoolOption = Annotated[
    tuple[Literal["process", "docker", "kubernetes"], ...], Parameter(negative=())
]


def deploy(
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    rule: RuleOption = (),
    pool: PoolOption = ("process",),
    notify: str | None = None,
    folder: Path | None = None,
    as_json: JsonOption = False,
) -> None:
    """Register everything with the server at PREFECT_API_URL. A repetition updates only changes.

    ```console
    pvar deploy my.yaml --pool docker --rule min_new_pairs=200
    ```

    Parameters
    ----------
    preset
        Default configuration of the deployed pipeline: name of a preset or path of a YAML file.
    set_
        Changes to the preset as key=value.
    rule
        Retraining rules as key=value: incoming, min_new_pairs, max_days_between_runs, max_attempts,
        exam, min_exam_prompts, reserve_share, audit_every, pairs, replay, hold, fresh_share.
    pool
        Work pool for stages; pipeline and retraining run on the first one. Can be repeated.
    notify
        Notification block for failures, as type/name, for example slack-webhook/ops.
    folder
        Folder with your own prefect.yaml, work_pools/ and automations/, which replace those of the
        project.
    as_json
        Print the names of everything as one JSON object.
    """
    from flows.commands.rules import retrain_config
    from infra.presets import load_config

    config = retrain_config(load_config(preset, set_), rule)

    from flows.console import console, print_json, show_progress
    from flows.deployment_specs import packaged_folder
    from flows.deployments import deploy as register

    with show_progress():
        deployed = register(
            folder or packaged_folder(), pool, config=config, preset=preset, notify=notify
        )
    if as_json:
        print_json(deployed._asdict())
        return
    for kind, names in deployed._asdict().items():
        console().print(f"{kind}: {', '.join(names)}", highlight=False, soft_wrap=True)
    if notify is None:
        console().print(
            "no notification is sent about failures; to send one, give --notify type/name",
            highlight=False,
        )
