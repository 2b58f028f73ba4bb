"""`pvar rounds`: run the pipeline again and again, each time from the promoted model."""

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption, PresetOption, SetOption
from flows.exit_codes import code_of_result

if TYPE_CHECKING:
    from rich.table import Table

    from pvar.round_rules import RoundResult, RoundsConfig, RoundsResult

Share = Annotated[float | None, Parameter(validator=validators.Number(gte=0, lte=1))]


def rounds(
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    rounds: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    batches: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    name: str | None = None,
    max_failed_gates: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    min_pvar_share: Share = None,
    max_kl: float | None = None,
    max_ability_loss: Share = None,
    as_json: JsonOption = False,
) -> int:
    """Sample from the champion, select, train, pass the gate or not, and again.

    The same command goes on with rounds that were interrupted, or that wait for a person, and
    with more --rounds it makes further ones. The first round starts from the champion, or from
    the policy while no model is promoted.

    The exit code is 4 if a round waits, and 3 if the gate of the last round did not pass.

    ```console
    pvar rounds my.yaml --rounds 3
    pvar rounds my.yaml --batches january.jsonl february.jsonl --max-kl 5
    ```

    Parameters
    ----------
    preset
        Name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    rounds
        Maximum number of rounds. Default: 3, or one for each batch.
    batches
        A source for each round, in this order: files, s3://, hub:. Default: ingest.source for all.
    name
        Name of the rounds, under which they go on. Default: promote.model_name.
    max_failed_gates
        End after this many rounds in a row without a promotion. Default: 2.
    min_pvar_share
        End when the mean PVar of the pool is below this share of the first round's. Default: 0.2
        on one pool, no bound with --batches.
    max_kl
        End when the promoted model's KL divergence from the first model is above this value, in
        nats per answer.
    max_ability_loss
        End when the promoted model has lost more than this share of the ability questions.
    as_json
        Print the results as JSON instead of a table.
    """
    options = {
        "rounds": rounds or len(batches) or None,
        "batches": batches or None,
        "name": name,
        "max_failed_gates": max_failed_gates,
        "min_pvar_share": min_pvar_share,
        "max_kl": max_kl,
        "max_ability_loss": max_ability_loss,
    }
    config = _config(
        preset, set_, {key: value for key, value in options.items() if value is not None}
    )

    from flows.round_record import ended_rounds
    from flows.server import has_configured_server
    from flows.wiring import connect

    store = connect().store
    result = None if has_configured_server() else ended_rounds(config, store)
    if result is None:
        _refuse_missing(config, ask=True)
        result = _run(config)
    if as_json:
        sys.stdout.write(result.model_dump_json() + "\n")
    else:
        _show(result, store.uri)
    return code_of_rounds(result)


def _run(config: "RoundsConfig") -> "RoundsResult":
    from flows.console import show_progress
    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.rounds import rounds as run

        return run(config)


def code_of_rounds(result: "RoundsResult") -> int:
    """The exit code: whether a round waits, and what the last gate decided."""
    gates = [each.gate_passed for each in result.rounds]
    return code_of_result(
        waits=result.waiting is not None, gate_passed=gates[-1] if gates else None
    )


def _config(
    preset: str | None, changes: tuple[str, ...], rules: dict[str, object]
) -> "RoundsConfig":
    """The configuration. Raises ConfigError or InputError, before anything starts, if it is invalid
    or what it needs is missing."""
    from pydantic import ValidationError

    from infra.faults import describe_faults
    from infra.presets import load_config
    from pvar.errors import ConfigError
    from pvar.round_rules import RoundsConfig, refuse_unfit_rounds

    pipeline = load_config(preset, changes)
    refuse_unfit_rounds(pipeline)
    try:
        config = RoundsConfig.model_validate({**rules, "pipeline": pipeline})
    except ValidationError as error:
        raise ConfigError(describe_faults(error, RoundsConfig)[0]) from error
    _refuse_missing(config, ask=False)
    return config


def _refuse_missing(config: "RoundsConfig", *, ask: bool) -> None:
    """Raise an error for what any round needs and is not there. Without `ask` servers are asked
    only if something else is missing."""
    from infra.preconditions import inline_stages, refuse_missing
    from pvar.round_rules import round_settings

    for number in range(1, 1 + (config.rounds if config.batches else 1)):
        settings = round_settings(config, number)
        refuse_missing(settings, inline_stages(settings), ask=ask)


def _show(result: "RoundsResult", store_uri: str) -> None:
    from flows.console import console

    def say(text: str) -> None:
        console().print(text, highlight=False, markup=False, soft_wrap=True)

    if result.rounds:
        console().print(_table(result.rounds))
    if result.end is not None:
        say(f"ended: {result.end.sentence}")
    if result.waiting is not None:
        say(result.waiting)
    say(f"report: {store_uri}/rounds/{result.name}/rounds.html")


def _table(rounds: "tuple[RoundResult, ...]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    columns = ("mean PVar", "of first", "saturated", "win rate", "against first", "ability", "KL")
    table = Table("", "from", *columns, "gate", "run", box=None)
    first = rounds[0].pool.mean
    for each in rounds:
        mean = each.pool.mean
        table.add_row(
            str(each.number),
            Text(each.start, overflow="fold"),
            "–" if mean is None else f"{mean:.4f}",
            "–" if mean is None or not first else f"{mean / first:.0%}",
            _percent(each.pool.saturated_share),
            _percent(each.win_rate, each.win_rate_lower, each.win_rate_upper),
            _percent(each.first_win_rate, each.first_win_rate_lower, each.first_win_rate_upper),
            _percent(each.ability),
            "–" if each.kl_since_first is None else f"{each.kl_since_first:.3g}",
            f"{each.fate}, version {each.version}",
            each.run,
        )
    return table


def _percent(value: float | None, lower: float | None = None, upper: float | None = None) -> str:
    if value is None:
        return "–"
    ends = "" if lower is None or upper is None else f" ({lower:.1%}–{upper:.1%})"
    return f"{value:.1%}{ends}"
