"""How often an interval of a method's advantage claims what is not so, and what it finds.

    python tests/benchmarks/method_claims.py --draws 2000

Two arms, each with some trainings, are judged on the same prompts. The win rate of a training is
drawn around its arm's with a standard deviation (scatter), equal or unequal in the arms. A prompt
has its own difficulty, one for each arm beside it, and noise for each training; verdicts are 0, ½
(15 %) or 1. Without a true difference, the share of intervals (95 %) that exclude 0 is the rate of
false claims; with one of 5 points, it is the power of the crossed interval. Three intervals:

    prompts     over prompts only, trainings averaged (as if each method were one model)
    crossed     pvar.evaluation.trainings
    hillis      the same variance, with the degrees of freedom of Hillis (2007)

With `--verdicts`, whole studies instead: a control and three arms, none of which differs from it
(one scatters otherwise where two numbers are given). The share of studies whose certificate says
that any arm helps or hurts, the share with a verdict "no difference above 2 points" for all arms,
and, with one arm better by 5 points, how often the certificate says that this arm helps.

With `--many`, the worst case for a study of many arms: the control's trainings agree, those of the
others scatter by 5 points, and a graded judge leaves little else. The share of studies that claim
something, by the level that their intervals together aim at.
"""

import argparse
import math
from datetime import UTC, datetime

import numpy as np
from machine import describe_machine
from numpy.typing import NDArray
from scipy.special import expit, ndtri
from scipy.stats import t

from pvar.evaluation.method_verdict import claim
from pvar.evaluation.trainings import method_difference

Floats = NDArray[np.float64]

SCATTERS = ((0.0, 0.0), (0.02, 0.02), (0.04, 0.04), (0.08, 0.08), (0.0, 0.08), (0.02, 0.06))
EFFECT = 0.05
LOGITS_PER_POINT = 4.6
"""A win rate near ½ changes by 1 / 4.6 of a logit here, difficulties included."""


def draw(
    rng: np.random.Generator, base: Floats, trainings: int, scatter: float, effect: float
) -> Floats:
    """Preferences of an arm's trainings, (trainings, prompts); `base` are the prompts' logits."""
    prompts = base.size
    own = rng.normal(0, 0.5, prompts)
    strength = LOGITS_PER_POINT * (effect + rng.normal(0, scatter, (trainings, 1)))
    logits = base + own + strength + rng.normal(0, 0.7, (trainings, prompts))
    preferences = (rng.random((trainings, prompts)) < expit(logits)).astype(float)
    preferences[rng.random((trainings, prompts)) < 0.15] = 0.5
    return preferences


def excludes_zero(arms: list[Floats]) -> dict[str, bool]:
    """Whether each interval excludes 0."""
    found = method_difference(*arms, seed=0)
    differences = arms[0].mean(axis=0) - arms[1].mean(axis=0)
    prompts = float(ndtri(0.975)) * math.sqrt(differences.var(ddof=1) / differences.size)
    parts = [arm.mean(axis=1).var(ddof=1) / len(arm) for arm in arms]
    half = (found.ci_upper - found.ci_lower) / 2
    variance = (half / t.ppf(0.975, found.degrees_of_freedom)) ** 2
    spread = sum(part**2 / (len(arm) - 1) for part, arm in zip(parts, arms, strict=True))
    degrees = variance**2 / spread if spread > 0 else math.inf
    hillis = t.ppf(0.975, degrees) * math.sqrt(variance)
    size = abs(found.difference)
    return {"prompts": size > prompts, "crossed": size > half, "hillis": size > hillis}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--verdicts", action="store_true")
    parser.add_argument("--many", action="store_true")
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}")
    if options.many:
        print_many_claims(options.draws)
    else:
        (print_verdicts if options.verdicts else print_intervals)(options.draws)


def print_many_claims(draws: int) -> None:
    levels = (0.05, 0.04, 0.03)
    print(f"| arms | trainings | {' | '.join(f'{100 * level:g} %' for level in levels)} |")
    print(f"|---|---|{'---|' * len(levels)}")
    rng = np.random.default_rng(5)
    for arms in (3, 7):
        for trainings in (5, 10):
            found = [_lowest_error_rate(rng, arms, trainings, levels) for _ in range(draws)]
            shares = (sum(lowest <= level for lowest in found) / draws for level in levels)
            cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
            print(f"| {arms} | {trainings} | {cells} |", flush=True)


def _lowest_error_rate(
    rng: np.random.Generator, arms: int, trainings: int, levels: tuple[float, ...]
) -> float:
    """The lowest of the levels at which the study claims something; infinity if it never does."""
    control, *others = (
        np.clip(
            0.5
            + scatter * rng.normal(size=(trainings, 1))
            + 0.15 * rng.normal(size=(trainings, 100)),
            0,
            1,
        )
        for scatter in (0.0, *[0.05] * arms)
    )
    for level in sorted(levels):
        for other in others:
            found = method_difference(other, control, confidence=1 - level / arms, seed=0)
            if found.ci_lower > 0 or found.ci_upper < 0:
                return level
    return math.inf


def print_verdicts(draws: int) -> None:
    print("| prompts | trainings | scatter | helps or hurts | no difference | finds 5 points |")
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(1)
    for prompts in (100, 805):
        for trainings in (5, 10):
            for scatter in SCATTERS:
                shares = _verdicts(rng, draws, prompts, trainings, scatter)
                label = " and ".join(f"{100 * each:g}" for each in dict.fromkeys(scatter))
                cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
                print(f"| {prompts} | {trainings} | {label} points | {cells} |", flush=True)


def _verdicts(
    rng: np.random.Generator, draws: int, prompts: int, trainings: int, scatter: tuple[float, float]
) -> list[float]:
    counts = [0, 0, 0]
    for _ in range(draws):
        base = rng.normal(0, 0.9, prompts)
        control, *arms = (
            draw(rng, base, trainings, each, 0.0)
            for each in (scatter[0], scatter[1], scatter[0], scatter[0])
        )
        better = draw(rng, base, trainings, scatter[1], EFFECT)
        said = [
            claim(arm, control, num_claims=3, delta=0.02, width=0.02, seed=0).verdict
            for arm in (*arms, better)
        ]
        counts[0] += any(each in ("helps", "hurts") for each in said[:3])
        counts[1] += all(each == "no difference above δ" for each in said[:3])
        counts[2] += said[3] == "helps"
    return [count / draws for count in counts]


def print_intervals(draws: int) -> None:
    print("| prompts | trainings | scatter | prompts only | crossed | Hillis | power |")
    print("|---|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for prompts in (100, 805):
        for trainings in (2, 3, 5, 10):
            for scatter in SCATTERS:
                row = _row(rng, draws, prompts, trainings, scatter)
                label = " and ".join(f"{100 * each:g}" for each in dict.fromkeys(scatter))
                shares = " | ".join(f"{100 * share:.1f} %" for share in row)
                print(f"| {prompts} | {trainings} | {label} points | {shares} |", flush=True)


def _row(
    rng: np.random.Generator, draws: int, prompts: int, trainings: int, scatter: tuple[float, float]
) -> list[float]:
    claims = dict.fromkeys(("prompts", "crossed", "hillis"), 0)
    power = 0
    for _ in range(draws):
        base = rng.normal(0, 0.9, prompts)
        arms = [draw(rng, base, trainings, each, 0.0) for each in scatter]
        for name, excludes in excludes_zero(arms).items():
            claims[name] += excludes
        arms[0] = draw(rng, base, trainings, scatter[0], EFFECT)
        found = method_difference(*arms, seed=0)
        power += found.ci_lower > 0
    return [*(count / draws for count in claims.values()), power / draws]


if __name__ == "__main__":
    main()
