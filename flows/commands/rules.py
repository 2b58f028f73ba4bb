"""`--rule key=value`: retraining rules, for the commands that retrain or deploy retraining."""

from collections.abc import Sequence
from typing import Annotated

import yaml
from cyclopts import Parameter
from pydantic import JsonValue, ValidationError

from infra.faults import describe_faults
from infra.presets import yaml_fault
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.retrain_decision import RetrainConfig, fixed_opponent

RuleOption = Annotated[tuple[str, ...], Parameter(name="--rule", negative=())]
"""Keys of `RetrainConfig` except `pipeline`. Values are parsed as YAML."""


def retrain_config(pipeline: PipelineConfig, rules: Sequence[str]) -> RetrainConfig:
    """The retraining configuration of a pipeline.

    Raises ConfigError for an invalid rule, and for a fixed opponent that decides about promotions.
    """
    tree: dict[str, JsonValue | PipelineConfig] = {}
    for rule in rules:
        key, separator, text = rule.partition("=")
        if not separator or key == "pipeline":
            raise ConfigError(f"--rule {rule!r} is not key=value, such as --rule min_new_pairs=500")
        try:
            tree[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--rule {rule!r}: the value is invalid YAML: {yaml_fault(error)}"
            ) from error
    try:
        config = RetrainConfig.model_validate({**tree, "pipeline": pipeline})
    except ValidationError as error:
        fault = describe_faults(error, RetrainConfig)[0]
        known = ", ".join(sorted(RetrainConfig.model_fields.keys() - {"pipeline"}))
        raise ConfigError(f"--rule {fault}; rules are {known}") from error
    if refusal := fixed_opponent(config):
        raise ConfigError(refusal)
    return config
