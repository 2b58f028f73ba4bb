"""Test, before a model is used, that the score of a text does not depend on its batch.

This detects wrong padding, a missing attention mask or a pooling position that is looked up by
token id. It also detects a model whose rewards are all equal or NaN. The test texts are answers of
different lengths to two prompts, so that padding, shared prompts, and shorter and longer neighbours
occur.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from infra.rewards.score_rows import ScoreRow, Unscorable, scorable
from pvar.errors import ScoringError
from pvar.number_format import NumberFormat
from pvar.ports import ScoreRequest
from pvar.records import Message

TOLERANCE: dict[NumberFormat, float] = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Maximum difference between alone and in a batch, relative to the largest absolute score."""

Evaluate = Callable[[Sequence[ScoreRow]], Mapping[ScoreRow, float | None]]
"""Rewards of rows; None is missing."""

_PROBES = {
    "What is the capital of France?": (
        "Paris.",
        "The capital of France is Paris, a city of about two million people on the river Seine.",
    ),
    "Write one sentence about the sea, and then explain in one more sentence why you chose it.": (
        "Waves.",
        "no no no no no no no no no no no no",
        "The sea keeps the light of the evening longer than the land does. I chose it because "
        "everyone who has stood on a beach after sunset has seen it, and few have put it in words.",
    ),
}

PROBES = tuple(
    ScoreRequest(f"probe-{number}", f"probe-{number}-{index}", (Message("user", prompt),), answer)
    for number, (prompt, answers) in enumerate(_PROBES.items())
    for index, answer in enumerate(answers)
)


def check_scores(
    encoded: Sequence[ScoreRow | Unscorable],
    evaluate: Evaluate,
    dtype: NumberFormat,
) -> None:
    """Score the test texts alone and in a batch; raises ScoringError unless both agree."""
    if reasons := sorted({row.reason for row in encoded if isinstance(row, Unscorable)}):
        raise ScoringError(
            f"plain question-and-answer conversations cannot be scored ({', '.join(reasons)}): the "
            "tokenizer's chat template does not fit this kind of model"
        )
    rows = scorable(encoded)
    alone = [reward for row in rows for reward in _rewards([row], evaluate)]
    if not all(map(math.isfinite, alone)):
        raise ScoringError(
            f"the model scores plain conversations with {alone}: its weights are damaged or "
            "overflow; download it again, or set its dtype to float32"
        )
    if min(alone) == max(alone):
        raise ScoringError(
            f"the model gives every test text the same score {alone[0]:.6g}, so it ignores the "
            "answer; check that it is a trained reward model of the form in its config.json"
        )
    _compare(alone, _rewards(rows, evaluate), dtype)


def _rewards(rows: Sequence[ScoreRow], evaluate: Evaluate) -> list[float]:
    """One reward per row; NaN is missing."""
    rewards = evaluate(rows)
    return [math.nan if (reward := rewards[row]) is None else reward for row in rows]


def _compare(alone: Sequence[float], together: Sequence[float], dtype: NumberFormat) -> None:
    allowed = TOLERANCE[dtype] * max(map(abs, alone))
    for one, other in zip(alone, together, strict=True):
        if not abs(one - other) <= allowed:
            raise ScoringError(
                f"a text scores {one:.6g} alone and {other:.6g} in a batch, more than the rounding "
                f"of {dtype} allows ({allowed:.2g}): scores depend on the batch, so this model's "
                "padding or attention is not supported; use another reward model"
            )
