"""Before a model scores anything: does the score of a text depend on its batch neighbours?

It must not, beyond rounding. Wrong padding, a missing attention mask or a pooled position that is
looked up by token id all show here, as does a model that gives everything the same reward or NaN.
The probes are answers of different lengths to two prompts, so that padding, sharing of prompts and
both lengths of neighbours occur.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from infra.rewards.score_rows import ScoreRow, Unscorable, scorable
from pvar.errors import ScoringError
from pvar.number_format import NumberFormat
from pvar.ports import ScoreRequest
from pvar.records import Message

TOLERANCE: dict[NumberFormat, float] = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest difference between alone and together, as a share of the largest absolute score."""

Evaluate = Callable[[Sequence[ScoreRow]], Mapping[ScoreRow, float | None]]
"""Rewards of rows, None where there is none."""

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
    """Score the encoded probes alone and together; raises ScoringError unless both agree."""
    if reasons := sorted({each.reason for each in encoded if isinstance(each, Unscorable)}):
        raise ScoringError(
            f"plain question-and-answer conversations cannot be scored ({', '.join(reasons)}): the "
            "tokenizer's chat template does not fit this kind of model"
        )
    rows = scorable(encoded)
    alone = [reward for row in rows for reward in _rewards([row], evaluate)]
    if not all(map(math.isfinite, alone)):
        raise ScoringError(
            f"the model scores plain conversations with {alone}: its weights are damaged or "
            "overflow; fetch it again, or load it with dtype float32"
        )
    if min(alone) == max(alone):
        raise ScoringError(
            f"the model gives every probe the same score {alone[0]:.6g}: it does not look at the "
            "answer; is it a trained reward model of the form that its config.json says?"
        )
    _compare(alone, _rewards(rows, evaluate), dtype)


def _rewards(rows: Sequence[ScoreRow], evaluate: Evaluate) -> list[float]:
    """One per row, NaN where there is none."""
    rewards = evaluate(rows)
    return [math.nan if (reward := rewards[row]) is None else reward for row in rows]


def _compare(alone: Sequence[float], together: Sequence[float], dtype: NumberFormat) -> None:
    allowed = TOLERANCE[dtype] * max(map(abs, alone))
    for one, other in zip(alone, together, strict=True):
        if not abs(one - other) <= allowed:
            raise ScoringError(
                f"a text scores {one:.6g} alone and {other:.6g} in a batch, more than the "
                f"{allowed:.2g} that {dtype} may round: scores depend on batch neighbours, so this "
                "model's padding or attention is not understood here and it cannot be used"
            )
