"""`pvar serve`: run a Prefect server, an MLflow server and a worker on this machine."""

import signal
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.commands.options import PresetOption, SetOption
from flows.commands.rules import RuleOption

if TYPE_CHECKING:
    from flows.local_services import Addresses

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends it: Ctrl-C, a polite kill, and a terminal that is closed."""

Port = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))]


def serve(
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    rule: RuleOption = (),
    port: Port = 4200,
    mlflow_port: Port = 5000,
) -> None:
    """Serve the workflow on loopback until Ctrl-C, which stops everything that was started.

    Closing the terminal also stops everything, unless the command was started with nohup.

    ```console
    pvar serve my.yaml --port 4200
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
    port
        Port of the Prefect server; 0 uses a free port.
    mlflow_port
        Port of the MLflow server; 0 uses a free port.
    """
    from flows.commands.rules import retrain_config
    from infra.presets import load_config

    config = retrain_config(load_config(preset, set_), rule)

    from flows.console import console, show_progress

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # by nohup
            signal.signal(number, _interrupt)
    try:
        with show_progress():
            from flows.local_services import serve as run
            from infra.settings import Settings

            run(
                Settings(),
                config,
                preset=preset,
                prefect_port=port,
                mlflow_port=mlflow_port,
                on_ready=_tell,
            )
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            console().print("stopped", highlight=False)


def _tell(addresses: "Addresses", experiment: str) -> None:
    from flows.console import console

    console().print(
        f"Prefect  {addresses.prefect}\nMLflow   {addresses.mlflow}\n"
        f"runs in MLflow: {experiment}\n"
        "for commands in another terminal:\n"
        f"export PREFECT_API_URL={addresses.prefect_api} "
        f"PVAR_MLFLOW_TRACKING_URI={addresses.mlflow}\nCtrl-C stops everything",
        highlight=False,
        soft_wrap=True,
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End the body once; another Ctrl-C must not leave half of it running."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
