"""`pvar backtest`: what its options refuse, before anything is read."""

import pytest

from flows.commands.backtest import backtest
from flows.commands.named_settings import named_settings
from pvar.errors import ConfigError


def test_a_name_and_settings_are_separated_as_in_a_shell() -> None:
    text = "replayed replay='{share: 0.5}' select.strategy=random"
    name, settings = named_settings("--policy", text, "")
    assert name == "replayed"
    assert settings == {"replay": {"share": 0.5}, "select.strategy": "random"}
    assert named_settings("--policy", "configured", "") == ("configured", {})


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (("a replay",), r"--policy 'a replay' is not a name and settings .* write, for example"),
        (("",), "--policy '' is not a name and settings"),
        (("a 'x=1",), "is not a name and settings"),
        (("a x={",), "is not a name and settings"),
        (("a", "a replay={}"), "the name 'a' occurs twice"),
        (("a", "b"), "a and b are the same settings"),
        (("a select.stratgy=top",), "policy a: the configuration has no setting"),
        (("a b", "a/b x=1"), "is not a name and settings"),
        (("a/b replay={}",), r"should match pattern .*given: 'a/b'"),
    ],
)
def test_policies_that_cannot_be_replayed_are_refused_at_once(
    policies: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        backtest(batches="history", policy=policies)
