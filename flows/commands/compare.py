"""`pvar compare`: compare methods, each trained several times, with a control."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption, PresetOption, SetOption
from pvar.selection import MatchedStrategyName

if TYPE_CHECKING:
    from flows.wiring import Wiring
    from pvar.study_config import StudyConfig


def compare(
    study: str | None = None,
    /,
    preset: PresetOption = None,
    *,
    strategy: Annotated[tuple[MatchedStrategyName, ...], Parameter(negative=())] = (),
    arm: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    control: str | None = None,
    seeds: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    at_once: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=64))] = None,
    set_: SetOption = (),
    as_json: JsonOption = False,
) -> None:
    """Train each arm of a study several times and compare the arms with the control.

    The result is a certificate: a table with intervals over prompts and trainings, and a verdict
    for each arm (helps, hurts, no difference that matters, not enough trainings). Below five
    trainings an arm nothing is claimed. Run the same command again to go on with a study that was
    stopped: what is complete is not made again. If all of it is, the earlier certificate is shown.

    Benchmarks of the preset are kept out of the selections. The models take those that the study
    names as endpoints.

    ```console
    pvar compare mixed-pool
    pvar compare --preset my.yaml --strategy top --strategy bottom --seeds 5
    ```

    Parameters
    ----------
    study
        Name of a study that ships with the project, or path to a YAML file. Without one, the
        arms are random selection and those of --strategy and --arm (default: top).
    strategy
        An arm that selects by this strategy. May be repeated.
    arm
        An arm: its name, then its settings as key=value, for example
        --arm "gentle select.strategy=top train.learning_rate=1e-4". May be repeated.
    control
        Name of the arm with which the others are compared. Default: random.
    seeds
        Number of trainings per arm, each with its own seed. Default: 5, or as in the study.
    at_once
        Trainings that run side by side. Default: 1, or as in the study.
    preset
        Name of a preset or path to a YAML file.
    set_
        Changes to the preset as key=value.
    as_json
        Print the certificate as one JSON object instead of Markdown.
    """
    from flows.wiring import connect
    from infra.studies import load_study

    options = {
        "arms": _arms(strategy, arm, replaces=study is None) or None,
        "control": control,
        "seeds": None if seeds is None else tuple(range(seeds)),
        "at_once": at_once,
    }
    given = {name: value for name, value in options.items() if value is not None}
    config = load_study(study, preset=preset, changes=set_, options=given)
    _refuse_missing(config, ask=False)

    from flows.complete_studies import CERTIFICATE
    from flows.console import print_json
    from flows.study_record import FOLDER

    wiring = connect()
    folder = f"{FOLDER}/{_study(config, wiring)}"
    name = "certificate.json" if as_json else CERTIFICATE
    text = wiring.store.read(f"{folder}/{name}").decode()
    if as_json:
        print_json(json.loads(text))
    else:
        print(text)  # noqa: T201  plain Markdown, also for files and programs


def _study(config: "StudyConfig", wiring: "Wiring") -> str:
    """The earlier study if all of it is there, else one that runs now."""
    from flows.complete_studies import complete_study
    from flows.console import show_log, show_progress
    from flows.server import has_configured_server
    from flows.study_record import FOLDER
    from pvar.errors import StageError

    if not has_configured_server():
        with show_log():
            complete = complete_study(config, wiring)
        if complete is not None:
            return complete

    _refuse_missing(config, ask=True)
    from flows.temporary_server import temporary_server

    with show_progress(), temporary_server():
        from flows.comparison import compare as run

        run(config)
    made = complete_study(config, wiring)
    if made is None:
        raise StageError(
            "the study ended, and something that it names was changed meanwhile; its certificate "
            f"is in {wiring.store.uri}/{FOLDER}/; run it again"
        )
    return made


def _refuse_missing(config: "StudyConfig", *, ask: bool) -> None:
    """Raise an error, before anything starts, for what any arm needs and is not there. Without
    `ask` servers are asked only if something else is missing."""
    from infra.preconditions import inline_stages, refuse_missing
    from pvar.study_config import HELD_OUT, cells, variant

    left_out = {"harness", "likelihood", "audit", "reward", "adopt"}
    if set(config.endpoints) <= {HELD_OUT}:
        left_out.add("judge")
    for cell in cells(config):
        pipeline = variant(config, cell, config.seeds[0])
        refuse_missing(pipeline, inline_stages(pipeline) - left_out, ask=ask)


def _arms(
    strategies: Sequence[str], arms: Sequence[str], *, replaces: bool
) -> list[dict[str, object]]:
    """The arms of the options. With `replaces`, the random control precedes them."""
    from pvar.errors import ConfigError
    from pvar.selection import CONTROL

    found: list[dict[str, object]] = [
        {"name": name, "settings": {"select.strategy": name}} for name in strategies
    ]
    found += [_arm(text) for text in arms]
    if not found:
        return []
    if not replaces:
        raise ConfigError(
            "a study has its own arms; leave out --strategy and --arm, or write the arms into the "
            "study's file"
        )
    if any(each["name"] == CONTROL for each in found):
        return found
    return [{"name": CONTROL, "settings": {"select.strategy": CONTROL}}, *found]


def _arm(text: str) -> dict[str, object]:
    """`NAME key=value key=value`; values are parsed as YAML."""
    from flows.commands.named_settings import named_settings

    example = '--arm "gentle select.strategy=top train.learning_rate=1e-4"'
    name, settings = named_settings("--arm", text, example)
    return {"name": name, "settings": settings}
