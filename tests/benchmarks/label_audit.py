"""How often flipped labels are found, and how often a clean batch is held.

    python tests/benchmarks/label_audit.py --repeats 400

A batch has labels of three sources, asked of three models that agree with 80, 70 and 60 % of them.
The models are alike on the same labels: whether one agrees is drawn with a correlation of 0.5 (a
Gaussian copula). Each repeat has clean batches of the same size first, and then one in which a
share of the labels of one source is flipped. The rules are the defaults of `hold`.

The first table is of independent labels, after four batches. In the second the true agreement of a
source also varies from batch to batch, by a normal shift that all models share; 500 labels of each
source. The third is of a first batch, of which nothing is known.
"""

import argparse
from typing import NamedTuple

import numpy as np
from scipy import special

from pvar.evaluation.label_audit import AgreementCounts, find_disagreements
from pvar.label_audit_config import HoldConfig

AGREEMENT = (0.8, 0.7, 0.6)
SOURCES = ("web", "mail", "code")
CORRELATION = 0.5


class World(NamedTuple):
    """How batches are made."""

    num_labels: int
    """Of each source, in each batch."""
    num_earlier: int
    flipped: float = 0.0
    spread: float = 0.0
    """Standard deviation of the true agreement of a source in a batch, the same for all models."""


class Rates(NamedTuple):
    """Shares of the repeats."""

    held: float
    named: float
    """The source with flipped labels is named."""
    others_named: float


def make_batch(rng: np.random.Generator, world: World, flipped: float) -> list[AgreementCounts]:
    """The counts of one batch, with flips in the first source."""
    found = []
    for place, source in enumerate(SOURCES):
        shift = rng.normal(0, world.spread)
        shared = rng.normal(size=world.num_labels)
        flips = rng.random(world.num_labels) < (flipped if place == 0 else 0)
        for number, share in enumerate(AGREEMENT):
            own = rng.normal(size=world.num_labels)
            latent = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
            agrees = (latent < special.ndtri(np.clip(share + shift, 0.01, 0.99))) != flips
            num_agree = int(agrees.sum())
            found.append(
                AgreementCounts(
                    kind="reward_model",
                    model=f"model {number}",
                    settings="",
                    grouping="source",
                    group=source,
                    num_agree=num_agree,
                    num_tie=0,
                    num_disagree=world.num_labels - num_agree,
                    num_missing=0,
                )
            )
    return found


def simulate(rng: np.random.Generator, world: World, repeats: int) -> Rates:
    """The rates under the default rules."""
    named: list[set[str]] = []
    for _ in range(repeats):
        earlier = [row for _ in range(world.num_earlier) for row in make_batch(rng, world, 0.0)]
        now = make_batch(rng, world, world.flipped)
        named.append({each.now.group for each in find_disagreements(now, earlier, HoldConfig())})
    return Rates(
        float(np.mean([bool(each) for each in named])),
        float(np.mean([SOURCES[0] in each for each in named])),
        float(np.mean([bool(each - {SOURCES[0]}) for each in named])),
    )


def main() -> None:
    """Print the tables."""
    from machine import describe_machine  # beside this file

    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=400)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print(describe_machine())
    print("\n| labels | flipped | held | flipped source named | another named |")
    print("|---|---|---|---|---|")
    for num_labels in (100, 200, 500, 2000):
        for flipped in (0.0, 0.1, 0.2):
            rates = simulate(rng, World(num_labels, 4, flipped), arguments.repeats)
            print(
                f"| {num_labels} | {flipped:.0%} | {rates.held:.1%} | {rates.named:.1%} | "
                f"{rates.others_named:.1%} |"
            )
    print("\n| spread, points | earlier batches | clean: held | 20 % flipped: named |")
    print("|---|---|---|---|")
    for spread in (0.02, 0.05):
        for num_earlier in (1, 2, 4, 12):
            clean, bad = (
                simulate(rng, World(500, num_earlier, flipped, spread), arguments.repeats)
                for flipped in (0.0, 0.2)
            )
            print(f"| {100 * spread:g} | {num_earlier} | {clean.held:.1%} | {bad.named:.1%} |")
    print("\n| labels | reversed | named |")
    print("|---|---|---|")
    for num_labels in (100, 500):
        for flipped in (0.0, 0.2, 0.6, 1.0):
            first = simulate(rng, World(num_labels, 0, flipped), arguments.repeats)
            print(f"| {num_labels} | {flipped:.0%} | {first.named:.1%} |")


if __name__ == "__main__":
    main()
