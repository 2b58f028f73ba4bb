"""From which model a training starts, and which model is the first one."""

from typing import Any

import pytest
from pydantic import ValidationError

from pvar.config import PipelineConfig
from pvar.references import replace_references


def config(**settings: Any) -> PipelineConfig:
    return PipelineConfig.model_validate(settings)


def test_the_first_model_stays_the_same_while_the_policy_changes() -> None:
    assert config(policy="org/a").first_model == "org/a"
    assert config(policy="champion", policy_if_none="org/a").first_model == "org/a"


def test_a_start_from_the_champion_names_the_first_model_and_no_other_start_does() -> None:
    with pytest.raises(ValidationError, match="policy_if_none does not say"):
        config(policy="champion")
    with pytest.raises(ValidationError, match=r"policy is org/a and policy_if_none is org/b"):
        config(policy="org/a", policy_if_none="org/b")


def test_the_pinned_configuration_of_a_run_is_valid_again() -> None:
    start = config(policy="champion", policy_if_none="org/a")
    pinned = replace_references(start, lambda each: f"{each.text}#sha256-{0:024x}")
    assert PipelineConfig.model_validate(pinned.model_dump()) == pinned


def test_a_bound_on_the_total_loss_needs_the_comparison() -> None:
    with pytest.raises(ValidationError, match=r"set evaluate\.against_first to true"):
        config(promote={"max_total_ability_loss": 0.1})
    config(promote={"max_total_ability_loss": 0.1}, evaluate={"against_first": True})


def test_a_bound_on_the_total_divergence_needs_the_estimate() -> None:
    with pytest.raises(ValidationError, match=r"set evaluate\.divergence to true"):
        config(promote={"max_total_divergence": 10})
    config(promote={"max_total_divergence": 10}, evaluate={"divergence": True})
