"""A missing service is skipped on a user's machine and a failure where it is promised."""

import pytest

from tests.services.packages import needs
from tests.services.processes import require


@pytest.fixture(autouse=True)
def users_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PVAR_REQUIRE_SERVICES", raising=False)


def test_a_missing_program_skips_with_the_command_that_installs_it() -> None:
    with pytest.raises(
        pytest.skip.Exception, match=r"\(no-such-program\); run: \.ci/services ceph"
    ):
        require("ceph", ["sh", "no-such-program"])


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("PVAR_REQUIRE_SERVICES", "1")])
def test_a_promised_service_that_is_missing_fails(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(pytest.fail.Exception, match="ceph is not installed"):
        require("ceph", ["no-such-program"])


def test_installed_programs_are_no_reason_to_skip() -> None:
    require("shell", ["sh"])


def test_a_missing_package_leaves_tests_out_unless_it_is_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert needs("no_such_package", "setup").args == (True,)
    assert needs("pytest", "setup").args == (False,)
    monkeypatch.setenv("CI", "true")
    assert needs("no_such_package", "setup").args == (False,)
