"""Which models take which benchmarks, as `pvar benchmark` and its form are asked."""

import re
from collections.abc import Sequence

from pvar.benchmark_config import BenchmarkedModel
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.references import CHAMPION

OUTPUTS_PREFIX = "outputs:"

_INVALID = re.compile(r"[^A-Za-z0-9._-]+")


def with_models(
    config: PipelineConfig, models: Sequence[str], benchmarks: Sequence[str]
) -> PipelineConfig:
    """The configuration in which these models take these benchmarks (all if empty).

    Without models, its own `benchmark_models` take them, or else the champion. Raises ConfigError
    without benchmarks, for a name that the configuration does not have, and for a model that is
    given twice.
    """
    known = [each.name for each in config.benchmarks]
    if not known:
        raise ConfigError(
            "the configuration has no benchmarks; add some under `benchmarks` (docs/benchmarks.md)"
        )
    if unknown := [name for name in benchmarks if name not in known]:
        raise ConfigError(
            f"there is no benchmark {unknown[0]!r}; the configuration has {', '.join(known)}"
        )
    kept = tuple(each for each in config.benchmarks if not benchmarks or each.name in benchmarks)
    if repeated := [model for model in models if models.count(model) > 1]:
        raise ConfigError(f"the model {repeated[0]!r} is given twice; give each model once")
    takers = [_taker(text, number) for number, text in enumerate(models, start=1)]
    takers = takers or _that_take(config.benchmark_models, [each.name for each in kept])
    takers = takers or [_taker(CHAMPION, 1)]
    tree = config.model_dump()
    tree["benchmarks"] = [each.model_dump() for each in kept]
    tree["benchmark_models"] = [taker.model_dump() for taker in takers]
    tree["promote"]["benchmarks"] = ()
    return PipelineConfig.model_validate(tree)


def _that_take(models: Sequence[BenchmarkedModel], kept: Sequence[str]) -> list[BenchmarkedModel]:
    """The models that take any of these benchmarks, without the others' names."""
    return [
        model.model_copy(update={"benchmarks": tuple(filter(kept.__contains__, model.benchmarks))})
        for model in models
        if any(model.takes(name) for name in kept)
    ]


def _taker(text: str, number: int) -> BenchmarkedModel:
    """The model of an argument; its name is the last part of the reference."""
    location = text.removeprefix(OUTPUTS_PREFIX)
    last = re.split("[/:]", location.rstrip("/"))[-1].partition("@")[0].partition(".json")[0]
    name = f"{_INVALID.sub('-', last).strip('-.')[:50] or 'model'}-{number}"
    if text.startswith(OUTPUTS_PREFIX):
        return BenchmarkedModel(name=name, outputs=location)
    return BenchmarkedModel(name=CHAMPION if text == CHAMPION else name, model=text)
