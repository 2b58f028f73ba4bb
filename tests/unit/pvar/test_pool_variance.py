"""The distribution of PVar over a pool, on the scale of the first."""

import numpy as np
import pytest

from pvar.pool_variance import pool_variance

# One model, two responses a prompt, scale 1: PVar = (σ(d) − ½)² for a difference d, so prompts with
# the differences 0, log 3 and log 9 have (0)², (3/4 − ½)² and (9/10 − ½)².
POOL = np.array([[[0.0, 0.0], [np.log(3), 0.0], [np.log(9), 0.0]]])


def test_mean_quantiles_and_shares_are_those_of_the_prompts() -> None:
    pool = pool_variance(POOL, scales=[1.0])
    assert pool.num_prompts == 3
    assert pool.mean == pytest.approx((0.0625 + 0.16) / 3)
    # Linear between the sorted values 0, 0.0625, 0.16, which are at 0, ½ and 1.
    assert pool.quantiles == pytest.approx((0.0125, 0.03125, 0.0625, 0.11125, 0.1405))
    assert pool.share_above == pytest.approx(1 / 3)  # 0.16 alone is above the median
    assert pool.saturated_share == 0  # 9/10 is not above 0.99


def test_a_later_pool_is_measured_on_the_scale_of_the_first() -> None:
    """Rewards that are half as different: by a scale of their own nothing would have changed."""
    first = pool_variance(POOL, scales=[1.0])
    later = pool_variance(POOL / 2, scales=[0.5], first=first)
    assert later.scales == (1.0,)
    # σ(½ log 3) = √3/(1 + √3) and σ(½ log 9) = ¾.
    expected = (0.0, (3**0.5 / (1 + 3**0.5) - 0.5) ** 2, 0.0625)
    assert later.mean == pytest.approx(sum(expected) / 3)
    assert later.share_above == 0  # 0.0625 is the first median itself


def test_saturated_pairs_are_counted_over_all_models() -> None:
    one = np.array([[10.0, 0.0], [0.1, 0.0]])
    pool = pool_variance([one, one * 0.1], scales=[1.0, 1.0])
    assert pool.saturated_share == pytest.approx(1 / 4)  # σ(10) alone is above 0.99


def test_a_pool_without_pairs_has_no_figures() -> None:
    pool = pool_variance([[[1.0, np.nan], [np.nan, np.nan]]], scales=[1.0])
    assert (pool.num_prompts, pool.mean, pool.quantiles) == (0, None, ())
    assert (pool.share_above, pool.saturated_share) == (None, None)
