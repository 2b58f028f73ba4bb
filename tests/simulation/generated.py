"""How many generated runs a simulation has, and which faults they are made of."""

import os
from collections.abc import Mapping, Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.simulation.scheduler import FATES, Fate


def generated_runs(usual: int) -> settings:
    """So many runs, always the same ones, or as many new ones as `PVAR_FUZZ_EXAMPLES` says."""
    wanted = os.environ.get("PVAR_FUZZ_EXAMPLES")
    return settings(
        max_examples=int(wanted or usual),
        deadline=None,
        derandomize=wanted is None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def fates_of_calls(
    num_calls: int, seconds: Sequence[float], *, most: int
) -> st.SearchStrategy[Mapping[int, Fate]]:
    """At most so many faults, each at one of the first calls."""
    fate = st.builds(Fate, st.sampled_from(FATES), st.sampled_from(seconds))
    return st.dictionaries(st.integers(0, num_calls), fate, max_size=most)
