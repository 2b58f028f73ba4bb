"""`pvar backtest`: replay historical files through retraining, by one or more policies."""

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption, PresetOption, SetOption
from flows.commands.rules import RuleOption

if TYPE_CHECKING:
    from rich.table import Table

    from pvar.backtest_config import BacktestConfig
    from pvar.backtest_result import BacktestResult, SimulatedRate


def backtest(
    preset: PresetOption = None,
    *,
    batches: str,
    set_: SetOption = (),
    rule: RuleOption = (),
    policy: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    every_days: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None,
    on_arrival: bool = True,
    at_once: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=16))] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay historical files through retraining, on a simulated clock, by one or more policies.

    Says what would have been promoted, held and set aside, with the curves of the models. Each
    policy has a store and an MLflow of its own below PVAR_HOME: the registry, the batches and the
    incoming files that exist are not touched. Run the same command again to go on with a backtest
    that was stopped.

    ```console
    pvar backtest my.yaml --batches history --policy "fresh fresh_share=0.1"
    ```

    Parameters
    ----------
    batches
        Folder or s3://bucket/prefix of the historical files. A file arrives at the date in its
        name (2026-03-01 or 2026-03-01T0930, UTC) if all files have one, else when it was modified.
    preset
        The pipeline to run: name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    rule
        Retraining rules as key=value, as for `pvar retrain`.
    policy
        A policy: its name, then the settings in which it differs, of the rules or of the pipeline,
        for example --policy "replayed replay='{share: 0.5}'" --policy configured. May be repeated.
    every_days
        Retraining looks for files once in this many days. Default: 1.
    on_arrival
        Retraining also looks when a file arrives.
    at_once
        Policies that are replayed side by side. Default: 1.
    as_json
        Print the result as JSON instead of a table.
    """
    from flows.commands.rules import retrain_config
    from infra.presets import load_config

    options = {"every_days": every_days, "at_once": at_once}
    config = _config(
        {
            "batches": batches,
            "retrain": retrain_config(load_config(preset, set_), rule),
            "on_arrival": on_arrival,
            **{name: value for name, value in options.items() if value is not None},
            **({"policies": _policies(policy)} if policy else {}),
        }
    )

    from flows.console import show_progress
    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.backtest import PAGE, run_backtest

        result, folder = run_backtest(config)
    if as_json:
        sys.stdout.write(result.model_dump_json() + "\n")
    else:
        _print(result, str(folder / PAGE))
    _refuse_failures(result)


def _policies(texts: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """`NAME key=value key=value` each; values are parsed as YAML."""
    from flows.commands.named_settings import named_settings
    from pvar.errors import ConfigError

    example = "--policy \"replayed replay='{share: 0.5}'\""
    found: dict[str, dict[str, object]] = {}
    for text in texts:
        name, settings = named_settings("--policy", text, example)
        if name in found:
            raise ConfigError(f"--policy: the name {name!r} occurs twice; give each its own name")
        found[name] = settings
    return found


def _config(tree: dict[str, object]) -> "BacktestConfig":
    from pydantic import ValidationError

    from infra.faults import describe_faults
    from pvar.backtest_config import BacktestConfig
    from pvar.errors import ConfigError

    try:
        return BacktestConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(["the backtest is invalid:", *describe_faults(error, BacktestConfig)])
        ) from error


def _print(result: "BacktestResult", page: str) -> None:
    from flows.console import console
    from pvar.backtest_result import backtest_remarks, policy_story

    def say(text: str) -> None:
        console().print(text, highlight=False, markup=False, soft_wrap=True)

    for policy in result.policies:
        console().print(_table(policy.name, result))
        for sentence in policy_story(policy):
            say(f"  {sentence}")
    for remark in backtest_remarks(result):
        say(remark)
    say(f"the page: {page}")


def _table(name: str, result: "BacktestResult") -> "Table":
    from rich.table import Table
    from rich.text import Text

    columns = ("made (UTC)", "rows", "decision", "against the champion", "against the first model")
    table = Table("", *columns, "ability", "why", box=None, title=name, title_justify="left")
    (policy,) = (each for each in result.policies if each.name == name)
    for batch in policy.batches:
        version = "" if batch.version is None else f", version {batch.version}"
        table.add_row(
            str(batch.number),
            f"{batch.made_at:%Y-%m-%d %H:%M}",
            str(batch.num_rows) + (f" + {batch.num_replayed}" if batch.num_replayed else ""),
            f"{batch.fate}{version}",
            _rate_text(batch.against_champion),
            _rate_text(batch.against_first),
            "–" if batch.ability is None else f"{batch.ability:.1%}",
            Text("; ".join(batch.why)),
        )
    return table


def _rate_text(rate: "SimulatedRate | None") -> str:
    return "–" if rate is None else f"{rate.rate:.1%} ({rate.lower:.1%}–{rate.upper:.1%})"


def _refuse_failures(result: "BacktestResult") -> None:
    """Raise StageError if the replay of a policy ended early."""
    from pvar.errors import StageError

    failed = [each for each in result.policies if each.error is not None]
    if failed:
        raise StageError(
            f"the replay of {len(failed)} of {len(result.policies)} policies ended early, first "
            f"{failed[0].name}: {failed[0].error}; run the same command again to go on"
        )
