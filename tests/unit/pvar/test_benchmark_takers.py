"""Which models take which benchmarks."""

from typing import Any

import pytest

from pvar.benchmark_takers import with_models
from pvar.config import PipelineConfig
from pvar.errors import ConfigError


def config_of(**others: Any) -> PipelineConfig:
    lm_eval = {"kind": "lm_eval", "tasks": ["a"], "backend": "fake"}
    benchmarks = [{**lm_eval, "name": "one"}, {**lm_eval, "name": "two"}]
    gate = {"benchmarks": [{"name": "two", "max_loss": 1}]}
    return PipelineConfig.model_validate({"benchmarks": benchmarks, "promote": gate, **others})


def takers(config: PipelineConfig) -> dict[str, tuple[str, ...]]:
    return {model.name: model.benchmarks for model in config.benchmark_models}


def test_without_models_the_champion_takes_all() -> None:
    config = with_models(config_of(), [], [])
    assert [each.name for each in config.benchmarks] == ["one", "two"]
    assert takers(config) == {"champion": ()}


def test_a_model_that_takes_none_of_the_chosen_benchmarks_is_left_out() -> None:
    models = [
        {"name": "a", "model": "org/a", "benchmarks": ["one", "two"]},
        {"name": "b", "model": "org/b", "benchmarks": ["one"]},
        {"name": "c", "model": "org/c"},
    ]
    config = with_models(config_of(benchmark_models=models), [], ["two"])
    assert [each.name for each in config.benchmarks] == ["two"]
    assert takers(config) == {"a": ("two",), "c": ()}


def test_models_are_named_by_the_last_part_of_their_reference() -> None:
    given = ["models:/pvar@champion", "org/Name@main", "outputs:/data/gpt-4.jsonl", "champion"]
    config = with_models(config_of(), given, [])
    assert list(takers(config)) == ["pvar-1", "Name-2", "gpt-4-3", "champion"]
    assert config.benchmark_models[2].outputs == "/data/gpt-4.jsonl"


@pytest.mark.parametrize(
    ("models", "names", "message"),
    [
        ([], ["three"], "there is no benchmark 'three'; the configuration has one, two"),
        (["org/a", "org/a"], [], "the model 'org/a' is given twice"),
    ],
)
def test_what_is_not_there_or_is_there_twice_is_refused(
    models: list[str], names: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        with_models(config_of(), models, names)


def test_a_configuration_without_benchmarks_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no benchmarks"):
        with_models(PipelineConfig(), [], [])
