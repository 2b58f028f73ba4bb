"""Labels needed until a reward model is as good, asked in the order of a queue or at random.

    python tests/benchmarks/annotation_queue.py --pool ../shared/data/preference_pool/pool.jsonl.gz

The annotator is simulated by published judgments: of two responses in the pool it prefers the one
with the higher reward, and calls equal rewards a tie, which costs a label and teaches nothing. With
`--noise 0.2`, a fifth of its preferences are the wrong way round.

A repeat splits the prompts at random: a third is held out, the rest can be asked about. Five small
reward models (logistic regression on differences of text features, each on a bootstrap of the
labels so far) begin with `--first` random pairs of random prompts. Then, round by round, they score
all responses of the other prompts, `make_queue` says which pairs to ask about next, and the models
are fitted again on all labels. One pair of each prompt is asked about, as in the product. All
orders of a repeat begin with the same labels.

The result is the accuracy of one model, fitted on all labels, on all pairs of the held-out prompts
that are no tie. "Labels needed" is the number at which an order's mean accuracy over the repeats
first reaches what random order reaches with all its labels (linear between rounds). The intervals
are a bootstrap over repeats, in which all orders have the same repeats.
"""

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from pvar.annotation_queue import AnsweredPrompt, QueueMeasure, make_queue
from pvar.digest import prompt_id
from pvar.records import Message, Prompt
from pvar.selection import RewardMatrix

Floats = NDArray[np.float64]

NUM_MODELS = 5
NUM_TOPICS = 30
ORDERS: tuple[QueueMeasure, ...] = ("random", "pvar_lower", "pvar", "disagreement", "entropy")


class Pool(NamedTuple):
    """The prompts with their responses."""

    prompts: list[AnsweredPrompt]
    """(P,)"""
    features: Floats
    """(P, N, F) standardised features of the responses' texts."""
    rewards: Floats
    """(P, N) by which the annotator compares."""


def read_pool(path: Path) -> Pool:
    """The pool in which equal texts of a prompt are left out by their number, not their place."""
    by_prompt: dict[int, list[dict[str, str | float]]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            by_prompt[row["prompt_id"]].append(row)
    prompts, rewards, texts = [], [], []
    for rows in by_prompt.values():
        answers = tuple(str(row["response"]) for row in rows)
        if len({answer.strip() for answer in answers}) < len(answers):
            continue
        messages = (Message("user", str(rows[0]["instruction"])),)
        prompt = Prompt(prompt_id(messages), messages, "train", "pool")
        prompts.append(AnsweredPrompt(prompt, answers))
        rewards.append([float(row["reward"]) for row in rows])
        texts += answers
    shape = (len(prompts), len(rewards[0]), -1)
    return Pool(prompts, text_features(texts).reshape(shape), np.array(rewards))


def text_features(texts: Sequence[str]) -> Floats:
    """Lengths, marks of lists, headings and code, and topics of the words; each standardised."""
    counts = [
        [
            np.log1p(len(text)),
            np.log1p(text.count("\n")),
            np.log1p(text.count("\n- ") + text.count("\n* ") + text.count("\n1.")),
            np.log1p(text.count("**")),
            np.log1p(text.count("\n#")),
            np.log1p(text.count("```")),
            float(text.rstrip()[-1:] in ".!?)"),
        ]
        for text in texts
    ]
    words = TfidfVectorizer(max_features=5000, sublinear_tf=True).fit_transform(texts)
    topics = TruncatedSVD(NUM_TOPICS, random_state=0).fit_transform(words)
    features = np.hstack([np.array(counts), topics])
    return np.asarray((features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9))


class Labels(NamedTuple):
    """What the annotator was asked: prompts, the two responses, and the preferences."""

    rows: list[int]
    pairs: list[tuple[int, int]]
    preferences: list[int]
    """1 the first one, −1 the second one, 0 a tie."""


class Annotator(NamedTuple):
    """Compares two responses by the pool's rewards."""

    pool: Pool
    noise: float
    luck: Floats
    """(P,) in [0, 1): below `noise`, the answer to this prompt is the wrong way round."""

    def ask(self, labels: Labels, row: int, pair: tuple[int, int]) -> None:
        """Add the answer to the labels."""
        gap = self.pool.rewards[row, pair[0]] - self.pool.rewards[row, pair[1]]
        sign = -1 if self.luck[row] < self.noise else 1
        labels.rows.append(row)
        labels.pairs.append(pair)
        labels.preferences.append(int(np.sign(gap)) * sign)


def fit(pool: Pool, labels: Labels, chosen: NDArray[np.intp]) -> Floats:
    """Weights (F,) of a reward model on these labels: P(first) = σ(w · difference of features)."""
    rows, pairs = np.array(labels.rows)[chosen], np.array(labels.pairs)[chosen]
    preferences = np.array(labels.preferences)[chosen]
    known = preferences != 0
    rows, pairs, preferences = rows[known], pairs[known], preferences[known]
    gaps = pool.features[rows, pairs[:, 0]] - pool.features[rows, pairs[:, 1]]
    if not len(rows):
        return np.zeros(pool.features.shape[2])
    both = np.vstack([gaps, -gaps])  # both orders, so that there are two classes
    model = LogisticRegression(C=0.1, fit_intercept=False, max_iter=300)
    model.fit(both, np.concatenate([preferences, -preferences]))
    return np.asarray(model.coef_[0])


def accuracy(pool: Pool, weights: Floats, rows: NDArray[np.intp]) -> float:
    """Share of the pairs that are no tie which the model orders as the rewards do."""
    scores = pool.features[rows] @ weights
    left, right = np.triu_indices(scores.shape[1], 1)
    truth = np.sign(pool.rewards[rows][:, left] - pool.rewards[rows][:, right])
    found = np.sign(scores[:, left] - scores[:, right])
    return float(np.mean((truth == found)[truth != 0]))


def learn(
    pool: Pool,
    order: QueueMeasure,
    repeat: int,
    *,
    first: int,
    step: int,
    rounds: int,
    noise: float,
) -> tuple[list[float], int]:
    """Accuracy after the first labels and after each round, and the number of ties."""
    rng = np.random.default_rng([repeat, 1])
    shuffled = rng.permutation(len(pool.prompts))
    held_out, rows = np.split(shuffled, [len(shuffled) // 3])
    annotator = Annotator(pool, noise, rng.random(len(pool.prompts)))
    labels = Labels([], [], [])
    num_responses = pool.rewards.shape[1]
    for row in rows[:first]:
        one, other = rng.choice(num_responses, 2, replace=False)
        annotator.ask(labels, int(row), (int(one), int(other)))
    place_of = {pool.prompts[row].prompt.prompt_id: int(row) for row in rows}
    curve = []
    for number in range(rounds + 1):
        everything = np.arange(len(labels.rows))
        curve.append(accuracy(pool, fit(pool, labels, everything), held_out))
        if number == rounds:
            break
        left = np.array(sorted(set(rows.tolist()) - set(labels.rows)))
        models = np.stack(
            [
                pool.features[left] @ fit(pool, labels, rng.choice(everything, len(everything)))
                for _ in range(NUM_MODELS)
            ]
        )
        queue = make_queue(
            [pool.prompts[row] for row in left],
            RewardMatrix(models, (1.0,) * NUM_MODELS),
            measure=order,
            budget=step,
            seed=repeat,
        )
        for pair in queue.pairs:
            row = place_of[pair.prompt_id]
            answers = pool.prompts[row].answers
            annotator.ask(labels, row, (answers.index(pair.answer_1), answers.index(pair.answer_2)))
    return curve, labels.preferences.count(0)


def labels_needed(curve: Floats, numbers: Floats, target: float) -> float:
    """The number of labels at which the curve first reaches the target; infinite if never."""
    reached = np.flatnonzero(curve >= target)
    if not len(reached):
        return float("inf")
    at = int(reached[0])
    if at == 0:
        return float(numbers[0])
    share = (target - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(numbers[at - 1] + share * (numbers[at] - numbers[at - 1]))


def interval(
    statistic: Callable[[NDArray[np.intp]], float], num_repeats: int
) -> tuple[float, float]:
    """95 % bootstrap interval over repeats."""
    rng = np.random.default_rng(0)
    values = [statistic(rng.integers(num_repeats, size=num_repeats)) for _ in range(2000)]
    lower, upper = np.quantile(values, [0.025, 0.975], method="nearest")
    return float(lower), float(upper)


def main() -> None:
    """Print the table."""
    from machine import describe_machine  # beside this file

    parser = argparse.ArgumentParser()
    default = Path("../shared/data/preference_pool/pool.jsonl.gz")
    parser.add_argument("--pool", type=Path, default=default)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--first", type=int, default=20)
    parser.add_argument("--step", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--noise", type=float, default=0.0)
    given = parser.parse_args()
    print(describe_machine())
    pool = read_pool(given.pool)
    print(f"{len(pool.prompts)} prompts, {given}")
    curves, ties = {}, {}
    for order in ORDERS:
        found = [
            learn(
                pool,
                order,
                repeat,
                first=given.first,
                step=given.step,
                rounds=given.rounds,
                noise=given.noise,
            )
            for repeat in range(given.repeats)
        ]
        curves[order] = np.array([curve for curve, _ in found])
        ties[order] = float(np.mean([count for _, count in found]))
        print(order, np.round(curves[order].mean(axis=0), 3).tolist(), flush=True)
    numbers = given.first + given.step * np.arange(given.rounds + 1.0)
    print("\n| order | ties | accuracy with all labels | minus random | labels needed |")
    print("|---|---|---|---|---|")
    control = curves["random"]
    for order, curve in curves.items():

        def gain(rows: NDArray[np.intp], curve: Floats = curve) -> float:
            return float(100 * (curve[rows, -1] - control[rows, -1]).mean())

        def needed(rows: NDArray[np.intp], curve: Floats = curve) -> float:
            target = float(control[rows, -1].mean())
            return labels_needed(curve[rows].mean(axis=0), numbers, target)

        everything = np.arange(given.repeats)
        low, high = interval(gain, given.repeats)
        least, most = interval(needed, given.repeats)
        print(
            f"| {order} | {ties[order]:.0f} | {curve[:, -1].mean():.1%} | "
            f"{gain(everything):+.1f} ({low:+.1f}, {high:+.1f}) | "
            f"{needed(everything):.0f} ({least:.0f}, {most:.0f}) |"
        )


if __name__ == "__main__":
    main()
