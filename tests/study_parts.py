"""The parts of a study or a backtest without the time that their processes take to start."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flows.backtest_folder import policy_environment
from flows.backtest_member import advance
from flows.study_member import make_part
from flows.study_processes import PartEnd


def parts_in_this_process(run: str, parts: Sequence[str], *, at_once: int) -> Iterator[PartEnd]:
    """As `flows.study_processes.run_parts`; an error is raised."""
    for part in parts:
        make_part(run, part)
        yield PartEnd(part, None, 1.0)


def policies_in_this_process(
    root: str, policies: Sequence[str], *, at_once: int, module: str
) -> Iterator[PartEnd]:
    """The same of a backtest: each policy is replayed until one of its runs has ended."""
    for policy in policies:
        home = Path(root) / policy
        with pytest.MonkeyPatch.context() as environment:
            for name, value in policy_environment(home).items():
                environment.setenv(name, value)
            advance(home)
        yield PartEnd(policy, None, 1.0)
