"""Prices of judges: each model its own, and no price where none is given."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.judges.openai_judge import OpenAIJudge, Prices
from infra.presets import load_config
from pvar.judge_config import ArenaHardJudge
from pvar.runtime_config import RuntimeConfig
from tests.workflow import open_wiring

ONE = {
    "model": "one",
    "usd_per_million_prompt_tokens": 2,
    "usd_per_million_completion_tokens": 8,
}
TWO = {**ONE, "model": "two", "usd_per_million_completion_tokens": 0}
OTHERS = {
    "judge_usd_per_million_prompt_tokens": 0.5,
    "judge_usd_per_million_completion_tokens": 1.5,
}


def price(runtime: RuntimeConfig, model: str) -> Prices | None:
    judge = open_wiring(Path.cwd()).judge(ArenaHardJudge(model=model), {}, runtime)
    assert isinstance(judge, OpenAIJudge)
    return judge.prices


def test_each_model_has_its_own_prices_and_the_others_the_general_ones() -> None:
    listed = RuntimeConfig.model_validate({"judge_prices": [ONE, TWO]})
    assert price(listed, "one") == Prices(2, 8)
    assert price(listed, "two") == Prices(2, 0)
    assert price(listed, "three") is None

    general = RuntimeConfig.model_validate({"judge_prices": [ONE], **OTHERS})
    assert price(general, "one") == Prices(2, 8)
    assert price(general, "three") == Prices(0.5, 1.5)
    half = RuntimeConfig(judge_usd_per_million_prompt_tokens=1)
    assert price(half, "three") is None


def test_a_model_with_two_prices_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"runtime\.judge_prices names a model twice: one, one"
    ):
        RuntimeConfig.model_validate({"judge_prices": [ONE, {**TWO, "model": "one"}]})


def test_prices_are_given_on_the_command_line() -> None:
    setting = (
        "runtime.judge_prices=[{model: one, usd_per_million_prompt_tokens: 2, "
        "usd_per_million_completion_tokens: 8}]"
    )
    assert price(load_config(None, [setting]).runtime, "one") == Prices(2, 8)
