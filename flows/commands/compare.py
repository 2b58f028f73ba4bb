"""`pvar compare`: compare selection strategies with random selection, over several seeds."""

from typing import Annotated

from cyclopts import Parameter, validators

from flows.commands.options import PresetOption, SetOption
from pvar.selection import MatchedStrategyName


def compare(
    *,
    strategy: Annotated[tuple[MatchedStrategyName, ...], Parameter(negative=())] = ("top",),
    seeds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 3,
    preset: PresetOption = None,
    set_: SetOption = (),
) -> None:
    """Train on several selections of the same responses and compare them with random selection.

    Benchmarks of the preset are kept out of the selections, but no model takes them.

    Parameters
    ----------
    strategy
        A value of select.strategy. May be repeated. `random` is always included.
    seeds
        Number of trainings per strategy, each with its own seed.
    preset
        Name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    """
    from pydantic import ValidationError

    from infra.preconditions import inline_stages, refuse_missing
    from infra.presets import load_config
    from pvar.errors import ConfigError
    from pvar.method_comparison import CompareConfig

    pipeline = load_config(preset, set_)
    refuse_missing(pipeline, inline_stages(pipeline) - {"judge", "harness"})
    try:
        config = CompareConfig.model_validate(
            {"pipeline": pipeline, "strategies": strategy, "seeds": tuple(range(seeds))}
        )
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error

    from flows.console import show_progress
    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.comparison import compare as run

        table = run(config)
    print(table)  # noqa: T201  plain Markdown, also for files and programs
