"""Labels needed until a reward model is as good, asked in the order of a queue or at random.

    python tests/benchmarks/annotation_queue.py --pool ../shared/data/preference_pool/pool.jsonl.gz

The annotator is simulated by published judgments: of two responses in the pool it prefers the one
with the higher reward, and calls equal rewards a tie, which costs a label and teaches nothing. With
`--noise 0.2`, a fifth of its preferences are the wrong way round.

A repeat splits the prompts at random: a third is held out, the rest can be asked about. All orders
of a repeat begin with the same `--first` random pairs. Then, round by round, `make_queue` says
which pairs of the other prompts to ask about next; one pair of each prompt, as in the product. The
queue has the rewards of

    --models given    two reward models: the annotator's rewards with normal errors of `--error`,
                      the same in all rounds, as those of a pipeline, with the scale `spread`
    --models fitted   five reward models fitted on the labels so far, each on a bootstrap of them

With `--responses 3` the queue has the rewards of three responses a prompt, and asks about these.

What is taught is a small reward model: logistic regression on differences of text features
(lengths, formatting, topics of the words), with a ridge. The result is its accuracy on all pairs of
the held-out prompts that are no tie. "Labels needed" is the number at which an order's mean
accuracy over the repeats first reaches what random order reaches with half of its labels (linear
between rounds). Useful labels are those that are no tie, after the first ones. The intervals are a
bootstrap over repeats, in which all orders have the same repeats.
"""

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from pvar.annotation_queue import AnsweredPrompt, QueueMeasure, make_queue
from pvar.digest import prompt_id
from pvar.records import Message, Prompt
from pvar.scale import scale_from_spread
from pvar.selection import RewardMatrix

Floats = NDArray[np.float64]

NUM_FITTED = 5
NUM_GIVEN = 2
NUM_TOPICS = 30
RIDGE = 30.0
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
    """The prompts whose responses all differ."""
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
    """Weights (F,) of a reward model on these labels: P(first) = σ(w · difference of features).

    Newton's method on the log loss of the preferences with the ridge `RIDGE`/2 ‖w‖².
    """
    rows, pairs = np.array(labels.rows)[chosen], np.array(labels.pairs)[chosen]
    signs = np.array(labels.preferences)[chosen][:, None]
    gaps = pool.features[rows, pairs[:, 0]] - pool.features[rows, pairs[:, 1]]
    gaps = (signs * gaps)[signs[:, 0] != 0]
    weights = np.zeros(pool.features.shape[2])
    for _ in range(10):
        wrong = 1 / (1 + np.exp(gaps @ weights))
        gradient = RIDGE * weights - gaps.T @ wrong
        curvature = (gaps.T * (wrong * (1 - wrong))) @ gaps
        weights -= np.linalg.solve(curvature + RIDGE * np.eye(len(weights)), gradient)
    return weights


def accuracy(pool: Pool, weights: Floats, rows: NDArray[np.intp]) -> float:
    """Share of the pairs that are no tie which the model orders as the rewards do."""
    scores = pool.features[rows] @ weights
    left, right = np.triu_indices(scores.shape[1], 1)
    truth = np.sign(pool.rewards[rows][:, left] - pool.rewards[rows][:, right])
    found = np.sign(scores[:, left] - scores[:, right])
    return float(np.mean((truth == found)[truth != 0]))


class Settings(NamedTuple):
    """The command's arguments."""

    pool: Path
    models: str
    error: float
    repeats: int
    responses: int
    first: int
    step: int
    rounds: int
    noise: float


class Lesson(NamedTuple):
    """What was learned from one order in one repeat."""

    curve: list[float]
    """Accuracy with the first labels and after each round."""
    useful_share: float
    """Of the labels after the first ones."""


def learn(pool: Pool, order: QueueMeasure, repeat: int, given: Settings) -> Lesson:
    """Ask and learn in this order."""
    rng = np.random.default_rng([repeat, 1])
    shuffled = rng.permutation(len(pool.prompts))
    held_out, rows = np.split(shuffled, [len(shuffled) // 3])
    annotator = Annotator(pool, given.noise, rng.random(len(pool.prompts)))
    errors = rng.normal(0, given.error, (NUM_GIVEN, *pool.rewards.shape))
    apart = np.random.default_rng([repeat, 2])
    unscored = apart.permutation(pool.rewards.shape[1])[given.responses :]
    labels = Labels([], [], [])
    for row in rows[: given.first]:
        one, other = rng.choice(pool.rewards.shape[1], 2, replace=False)
        annotator.ask(labels, int(row), (int(one), int(other)))
    place_of = {pool.prompts[row].prompt.prompt_id: int(row) for row in rows}
    curve = []
    for number in range(given.rounds + 1):
        everything = np.arange(len(labels.rows))
        curve.append(accuracy(pool, fit(pool, labels, everything), held_out))
        if number == given.rounds:
            break
        left = np.array(sorted(set(rows.tolist()) - set(labels.rows)))
        scales = (1.0,) * NUM_FITTED
        if given.models == "given":
            models = (pool.rewards + errors)[:, left]
            scales = tuple(scale_from_spread(model) for model in models)
        else:
            drawn = rng.integers(len(everything), size=(NUM_FITTED, len(everything)))
            models = np.stack([pool.features[left] @ fit(pool, labels, each) for each in drawn])
        models[:, :, unscored] = np.nan
        queue = make_queue(
            [pool.prompts[row] for row in left],
            RewardMatrix(models, scales),
            measure=order,
            budget=given.step,
            seed=repeat,
        )
        for pair in queue.pairs:
            row = place_of[pair.prompt_id]
            answers = pool.prompts[row].answers
            annotator.ask(labels, row, (answers.index(pair.answer_1), answers.index(pair.answer_2)))
    return Lesson(curve, float(np.mean(np.array(labels.preferences[given.first :]) != 0)))


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
    parser.add_argument("--models", choices=("given", "fitted"), default="given")
    parser.add_argument("--error", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--first", type=int, default=10)
    parser.add_argument("--step", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--noise", type=float, default=0.0)
    given = Settings(**vars(parser.parse_args()))
    print(describe_machine())
    pool = read_pool(given.pool)
    print(f"{len(pool.prompts)} prompts, {given}")
    if given.models == "given":
        print(f"accuracy of a given model: {accuracy_with_errors(pool, given.error):.1%}")
    lessons = {
        order: [learn(pool, order, repeat, given) for repeat in range(given.repeats)]
        for order in ORDERS
    }
    print_table(lessons, given)


def accuracy_with_errors(pool: Pool, error: float) -> float:
    """Share of the pairs that are no tie which rewards with these errors order rightly."""
    noisy = pool.rewards + np.random.default_rng(0).normal(0, error, pool.rewards.shape)
    left, right = np.triu_indices(pool.rewards.shape[1], 1)
    gaps = pool.rewards[:, left] - pool.rewards[:, right]
    found = noisy[:, left] - noisy[:, right]
    return float(np.mean((gaps * found > 0)[gaps != 0]))


def print_table(lessons: Mapping[QueueMeasure, Sequence[Lesson]], given: Settings) -> None:
    """One row an order."""
    numbers = given.first + given.step * np.arange(given.rounds + 1.0)
    curves = {order: np.array([each.curve for each in them]) for order, them in lessons.items()}
    control, half = curves["random"], (given.rounds + 1) // 2
    print(f"\n| order | useful labels | accuracy with {numbers[half]:.0f} | minus random "
          f"| labels needed | accuracy with {numbers[-1]:.0f} | minus random |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for order, curve in curves.items():

        def gain(rows: NDArray[np.intp], at: int, curve: Floats = curve) -> float:
            return float(100 * (curve[rows, at] - control[rows, at]).mean())

        def needed(rows: NDArray[np.intp], curve: Floats = curve) -> float:
            target = float(control[rows, half].mean())
            return labels_needed(curve[rows].mean(axis=0), numbers, target)

        cells = [order, f"{np.mean([each.useful_share for each in lessons[order]]):.0%}"]
        for at in (half, -1):
            of_gain = partial(gain, at=at)
            cells.append(f"{curve[:, at].mean():.1%}")
            cells.append(with_interval(of_gain, given.repeats, "+.1f"))
            if at == half:
                cells.append(with_interval(needed, given.repeats, ".0f"))
        print(f"| {' | '.join(cells)} |")
    for order, curve in curves.items():
        print(order, np.round(100 * curve.mean(axis=0), 1).tolist())


def with_interval(
    statistic: Callable[[NDArray[np.intp]], float], num_repeats: int, form: str
) -> str:
    """The value with its 95 % bootstrap interval over repeats."""
    ends = interval(statistic, num_repeats)
    value, lower, upper = (
        format(each, form) for each in (statistic(np.arange(num_repeats)), *ends)
    )
    return f"{value} ({lower}, {upper})"


if __name__ == "__main__":
    main()
