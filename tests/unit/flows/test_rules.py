"""`--rule`: when to retrain, on the command line."""

import re
from collections.abc import Callable

import pytest

from flows.commands.deploy import deploy
from flows.commands.retrain import retrain
from flows.commands.rules import retrain_config
from flows.commands.serve import serve
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.retrain_decision import RetrainConfig


def test_rules_change_when_and_never_what_is_run() -> None:
    pipeline = PipelineConfig(policy="org/model")
    config = retrain_config(pipeline, ["min_new_pairs=9", "max_days_between_runs=null"])
    assert (config.min_new_pairs, config.max_days_between_runs) == (9, None)
    assert config.pipeline == pipeline


@pytest.mark.parametrize("command", [retrain, deploy, serve])
def test_the_help_of_a_command_names_every_rule(command: Callable[..., None]) -> None:
    (keys,) = re.findall(r"rules as key=value: ([^.]*)\.", str(command.__doc__))
    said = set(re.split(r",\s+", keys))
    assert set(RetrainConfig.model_fields) - {"pipeline"} == said


def test_a_fixed_opponent_is_refused_where_it_decides_about_promotions() -> None:
    def config(**promote: str) -> PipelineConfig:
        evaluate = {"opponent": "org/model"}
        return PipelineConfig.model_validate({"evaluate": evaluate, "promote": promote})

    for mode in ("automatic", "approval"):
        with pytest.raises(
            ConfigError, match=r"opponent is org/model, .* set evaluate\.opponent=c"
        ):
            retrain_config(config(mode=mode), [])
    assert retrain_config(config(mode="never"), []).pipeline.evaluate.opponent == "org/model"
    alias = PipelineConfig.model_validate({"evaluate": {"opponent": "models:/pvar@champion"}})
    assert retrain_config(alias, []).pipeline == alias


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("min_new_pairs", "is not key=value"),
        ("pipeline=x", "is not key=value"),
        ("min_new_pairs=0", r"--rule min_new_pairs: .* greater than or equal to 1 \(given: 0\)"),
        ("every=5", r"--rule every: .* rules are .*exam, .*incoming, .*max_days"),
        ("incoming=[", "the value is invalid YAML"),
        ("incoming=../others", "--rule incoming: String should match pattern"),
    ],
)
def test_a_rule_that_is_none_is_named(rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        retrain_config(PipelineConfig(), [rule])
