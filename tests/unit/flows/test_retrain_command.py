"""`pvar retrain`: when it needs a Prefect server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from flows.commands.retrain import retrain
from flows.retraining import RetrainResult
from pvar.retrain_decision import RetrainConfig

RESULT = RetrainResult(runs=(), batch=None, reasons=("no new data",), quarantined=())


@pytest.mark.parametrize(
    ("is_configured", "num_flows", "expected"),
    [
        (False, 0, ["a look"]),
        (False, 2, ["a look", "server", "flow", "flow", "its end"]),
        (True, 0, ["server", "a look as a flow", "its end"]),
    ],
)
def test_a_server_is_started_once_and_only_if_a_flow_is_due(
    is_configured: bool, num_flows: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    @contextmanager
    def server() -> Iterator[None]:
        happened.append("server")
        yield
        happened.append("its end")

    def once(_: RetrainConfig, __: object, before_flows: Callable[[], object]) -> RetrainResult:
        happened.append("a look")
        for _number in range(num_flows):
            before_flows()
            happened.append("flow")
        return RESULT

    def flow(_: RetrainConfig) -> RetrainResult:
        happened.append("a look as a flow")
        return RESULT

    monkeypatch.setattr("flows.server.has_configured_server", lambda: is_configured)
    monkeypatch.setattr("flows.temporary_server.temporary_server", server)
    monkeypatch.setattr("flows.wiring.connect", lambda: SimpleNamespace(store=None))
    monkeypatch.setattr("flows.retraining.retrain_once", once)
    monkeypatch.setattr("flows.retraining.retrain", flow)
    assert retrain("demo") == 0
    assert happened == expected
