"""How many years see a false promotion, with and without a budget for the errors of an exam.

    python tests/benchmarks/exam_wear.py --years 4000

A year is 52 retrainings without any true gain, gated on one exam that stays the same. Each new
model differs from the champion that it was trained from on every prompt, in both directions alike:
over all prompts of that kind it is as good. A part (`alike`) of that difference is the same in all
retrainings of a year, because they have the same recipe, so that they are lucky on the same
questions. The champion's answers are those of its own look. Answers have luck of their own, and
15 % of the comparisons are ties.

A promotion moves the champion, so that the next model starts from a model that this exam chose.
Without a budget, the gate wants the 97.5 % bound of the win rate above ½ (Student's t, which agrees
with the gate's bootstrap at this level); with one, also the bound at the look's level.

The second table is the price: how often a better model is promoted at a look.
"""

import argparse
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pvar.evaluation.alpha_spending import level_of_look

Floats = NDArray[np.float64]

LEVEL = 0.025
LUCK = 0.7
"""Standard deviation of an answer's luck, in logits; that of a model's difference is `CHANGE`."""
CHANGE = 0.5
TIES = 0.15


class Years(NamedTuple):
    """What happened in simulated years."""

    any_promotion: float
    """Share of the years with a promotion, all of which are false."""
    promotions: float
    """Mean number of promotions in a year."""


def lower_bounds(preferences: Floats, level: float) -> Floats:
    """`mean_lower_bound` of each row, without its cases for few prompts."""
    num_prompts = preferences.shape[1]
    error = preferences.std(axis=1, ddof=1) / np.sqrt(num_prompts)
    return preferences.mean(axis=1) - stats.t.isf(level, num_prompts - 1) * error


def judged(rng: np.random.Generator, advantage: Floats) -> Floats:
    """Preferences 0, ½ or 1 for the challenger, by its advantage on each prompt."""
    preferences = (advantage > 0).astype(float)
    preferences[rng.random(advantage.shape) < TIES] = 0.5
    return preferences


def simulate(
    rng: np.random.Generator,
    *,
    num_years: int,
    num_prompts: int,
    alike: float,
    budget: float | None,
    num_looks: int = 52,
) -> Years:
    """Years of `num_looks` looks at `num_prompts` fixed questions, none of which sees a gain."""
    shape = (num_years, num_prompts)
    common = rng.normal(0, CHANGE, shape)
    luck = rng.normal(0, LUCK, shape)  # of the champion's answers
    num_promotions = np.zeros(num_years, dtype=int)
    for look in range(1, num_looks + 1):
        own = rng.normal(0, CHANGE, shape)
        change = np.sqrt(alike) * common + np.sqrt(1 - alike) * own
        new_luck = rng.normal(0, LUCK, shape)
        preferences = judged(rng, change + new_luck - luck)
        promoted = lower_bounds(preferences, LEVEL) > 0.5
        if budget is not None:
            promoted &= lower_bounds(preferences, level_of_look(look, budget)) > 0.5
        num_promotions += promoted
        luck[promoted] = new_luck[promoted]
    return Years(float(np.mean(num_promotions > 0)), float(num_promotions.mean()))


def power(
    rng: np.random.Generator, *, num_prompts: int, win_rate: float, level: float, num: int
) -> float:
    """Share of `num` models of this true win rate whose lower bound at `level` is above ½."""
    spread = np.sqrt(CHANGE**2 + 2 * LUCK**2)
    gain = spread * stats.norm.ppf(0.5 + (win_rate - 0.5) / (1 - TIES))
    advantage = rng.normal(gain, spread, (num, num_prompts))
    preferences = judged(rng, advantage)
    both = np.minimum(lower_bounds(preferences, level), lower_bounds(preferences, LEVEL))
    return float(np.mean(both > 0.5))


def main() -> None:
    """Print both tables."""
    from machine import describe_machine  # beside this file

    parser = argparse.ArgumentParser()
    parser.add_argument("--years", type=int, default=4000)
    parser.add_argument("--budget", type=float, default=0.05)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print(describe_machine())
    print("\n| prompts | alike | without a budget | promotions a year | with a budget |")
    print("|---|---|---|---|---|")
    for num_prompts in (100, 400):
        for alike in (0.0, 0.5, 0.9):
            given = {"num_years": arguments.years, "num_prompts": num_prompts, "alike": alike}
            without = simulate(rng, **given, budget=None)
            spent = simulate(rng, **given, budget=arguments.budget)
            print(
                f"| {num_prompts} | {alike:g} | {without.any_promotion:.1%} | "
                f"{without.promotions:.2f} | {spent.any_promotion:.1%} |"
            )
    looks = (1, 4, 12, 52)
    print(f"\n| prompts | win rate | without | {' | '.join(f'look {look}' for look in looks)} |")
    print(f"|---|---|---|{'---|' * len(looks)}")
    for num_prompts in (100, 400):
        for win_rate in (0.55, 0.6, 0.65):
            given = {"num_prompts": num_prompts, "win_rate": win_rate, "num": arguments.years}
            shares = [power(rng, **given, level=LEVEL)]
            for look in looks:
                shares.append(power(rng, **given, level=level_of_look(look, arguments.budget)))
            print(
                f"| {num_prompts} | {win_rate:.0%} | "
                + " | ".join(f"{share:.0%}" for share in shares)
                + " |"
            )


if __name__ == "__main__":
    main()
