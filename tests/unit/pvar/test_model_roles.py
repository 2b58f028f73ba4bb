"""Which reward models select and which label: what a configuration may say, and what it means."""

from typing import Any

import pytest
from pydantic import ValidationError

from pvar.config import PipelineConfig
from pvar.model_roles import ModelRoles

SMALL = {"kind": "fake", "name": "small"}
LARGE = {"kind": "fake", "name": "large"}
IMPLICIT = {"kind": "implicit", "policy": "org/p", "reference": "org/r"}
VALIDATION = {**IMPLICIT, "name": "validation", "policy": "org/v"}
GAP = {"strategy": "implicit_gap_small"}


def configured(models: list[dict[str, str]], **parts: Any) -> PipelineConfig:
    return PipelineConfig.model_validate({"score": {"reward_models": models}, **parts})


@pytest.mark.parametrize(
    ("models", "parts", "roles"),
    [
        ([SMALL, LARGE], {}, ModelRoles(("small", "large"), ("small", "large"), ())),
        (
            [LARGE, SMALL],
            {"select": {"models": ["small"]}, "pair": {"models": ["large"]}},
            ModelRoles(("small",), ("large",), ()),
        ),
        (  # in the order of score.reward_models, so that the order here changes nothing
            [LARGE, SMALL],
            {"select": {"models": ["small", "large"]}},
            ModelRoles(("large", "small"), ("large", "small"), ()),
        ),
        (
            [SMALL, IMPLICIT, LARGE],
            {"select": {**GAP, "models": ["small"]}},
            ModelRoles(("small",), ("small", "large"), ("implicit",)),
        ),
        (
            [IMPLICIT, LARGE, VALIDATION, SMALL],
            {
                "select": {"strategy": "lossdiff_irm", "models": ["small"]},
                "pair": {"models": ["large"]},
            },
            ModelRoles(("small",), ("large",), ("implicit", "validation")),
        ),
        # Without a strategy of the gap, the implicit reward is a reward as any other.
        ([SMALL, IMPLICIT], {}, ModelRoles(("small", "implicit"), ("small", "implicit"), ())),
        ([SMALL, LARGE], {"pair": {"rule": "original"}}, ModelRoles(("small", "large"), (), ())),
    ],
)
def test_each_role_has_its_models(
    models: list[dict[str, str]], parts: dict[str, Any], roles: ModelRoles
) -> None:
    assert configured(models, **parts).model_roles == roles


@pytest.mark.parametrize(
    ("models", "parts", "message"),
    [
        (
            [SMALL, LARGE],
            {"select": {"models": ["smal"]}},
            "select.models: there is no reward model 'smal'; score.reward_models has small, large",
        ),
        ([SMALL], {"pair": {"models": ["x"]}}, "pair.models: there is no reward model 'x'"),
        ([SMALL], {"select": {"models": []}}, "at least 1 item"),
        ([SMALL], {"pair": {"models": ["small", "small"]}}, "'small' occurs twice"),
        (
            [SMALL, LARGE],
            {"select": {"strategy": "disagreement", "models": ["small"]}},
            "needs at least 2 reward models, but select.models names 1; add another",
        ),
        (
            [SMALL, IMPLICIT],
            {"select": {**GAP, "models": ["small", "implicit"]}},
            "select.models names 'implicit', a reward model of kind implicit",
        ),
        (
            [SMALL, IMPLICIT, VALIDATION],
            {"select": {"strategy": "lossdiff_irm"}, "pair": {"models": ["validation"]}},
            "pair.models names 'validation', a reward model of kind implicit",
        ),
        ([SMALL, IMPLICIT], {"select": GAP, "pair": {"models": ["implicit"]}}, "pair.models names"),
        (
            [SMALL, LARGE],
            {"select": {"models": ["small"]}, "pair": {"models": ["small"]}},
            "reward model 'large' neither selects",
        ),
        (
            [SMALL, LARGE],
            {"select": {"models": ["small"]}, "pair": {"rule": "original"}},
            "reward model 'large' neither selects",
        ),
        ([SMALL], {"pair": {"rule": "original", "models": ["small"]}}, "annotated in the data"),
    ],
)
def test_roles_that_do_not_fit_are_refused(
    models: list[dict[str, str]], parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as error:
        configured(models, **parts)
    assert message in str(error.value)
