"""Scorers and the judge: scores in float32 and in the format of `auto`, alone and in a batch."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.rewards.self_test import TOLERANCE
from pvar.number_format import NumberFormat
from pvar.ports import ScoreRequest
from pvar.records import Comparison
from pvar.reward_config import ClassifierReward
from tests.gpu.bench import Bench, timed, worst
from tests.gpu.rows import Found

Load = Callable[[NumberFormat], Any]
"""Loads a scorer."""

NUM_ALONE = 12
"""Conversations that are also scored alone."""

MIN_CORRELATION = 0.98
"""Of the scores of two formats."""


def classifier(bench: Bench) -> Found:
    """A reward model with one logit, beside transformers' own classifier in float32."""
    found = _check(bench, _loader(bench, "classifier"), (bench.low, "float32"))
    difference = _by_transformers(bench)
    problems = [f"{difference:.2g} from transformers' own scores"] if difference > 1e-3 else []
    return Found(
        [*found.figures, f"float32: within {difference:.1g} of transformers' own classifier"],
        [*found.problems, *problems],
    )


def gated(bench: Bench) -> Found:
    """A reward model of ArmoRM's form."""
    return _check(bench, _loader(bench, "gated"), (bench.low, "float32"))


def implicit(bench: Bench) -> Found:
    """The implicit reward, float32 by definition; log-probabilities as training has them."""
    from infra.rewards.implicit import load_implicit_scorer

    beta = 0.1

    def load(_: NumberFormat) -> Any:
        return load_implicit_scorer(bench.policy(), bench.policy(1), beta, None)

    found = _check(bench, load, ("float32",), passes=2)
    scores = _scores(load("float32"), bench.conversations[:NUM_ALONE])
    wanted = beta * (_training_logps(bench, 0) - _training_logps(bench, 1))
    difference = worst((scores - wanted).tolist()) / worst(wanted.tolist())
    problems = [f"{difference:.2g} from training's log-ratios"] if difference > 1e-3 else []
    return Found(
        [*found.figures, f"within {difference:.1g} of training's log-ratios"],
        [*found.problems, *problems],
    )


def vllm_classifier(bench: Bench) -> Found:
    """A reward model with one logit on vLLM's pooling runner, beside transformers in float32."""
    from infra.rewards.vllm_classifier import load_vllm_classifier
    from tests.gpu.engines import vllm_runtime

    folder = bench.classifier()

    def load(number_format: NumberFormat) -> Any:
        if number_format == "float32":
            return _loader(bench, "classifier")(number_format)
        return load_vllm_classifier(folder, _settings(number_format), vllm_runtime(bench))

    return _check(bench, load, (bench.low, "float32"))


def judge(bench: Bench) -> Found:
    """A reward model as judge: one preference whatever the order of the answers."""
    from infra.judges.reward_model_judge import RewardPairJudge

    load = _loader(bench, "classifier")
    conversations = bench.conversations
    comparisons = [
        Comparison(one.prompt_id, one.messages, one.response, other.response)
        for one, other in zip(conversations[::2], conversations[1::2], strict=False)
        if one.prompt_id == other.prompt_id
    ]
    turned = [each._replace(first=each.second, second=each.first) for each in comparisons]
    preferences = {}
    figures = []
    for number_format in (bench.low, "float32"):
        seat = RewardPairJudge(load(number_format), {"kind": "classifier"})
        seat.judge(comparisons[:2])
        verdicts, seconds = timed(lambda seat=seat: seat.judge(comparisons))
        preferences[number_format] = _preferences(verdicts)
        order = worst((_preferences(seat.judge(turned)) + preferences[number_format] - 1).tolist())
        figures.append(
            f"{number_format}: {len(comparisons) / seconds:,.0f} comparisons/s, order changes "
            f"{order:.1g}"
        )
        del seat
        if not order <= TOLERANCE[number_format]:
            return Found(figures, [f"the order of the answers changes a preference by {order:.2g}"])
    difference = worst((preferences[bench.low] - preferences["float32"]).tolist())
    figures.append(f"preferences of both within {difference:.2g}")
    problems = [] if difference <= 0.1 else ["the preferences of both formats differ"]
    return Found(figures, problems)


def _preferences(verdicts: Sequence[Any]) -> npt.NDArray[np.float64]:
    return np.array([math.nan if each.preference is None else each.preference for each in verdicts])


def _loader(bench: Bench, kind: str) -> Load:
    from infra.rewards.classifier import load_classifier_scorer

    folder = getattr(bench, kind)()

    def load(number_format: NumberFormat) -> Any:
        return load_classifier_scorer(folder, _settings(number_format), None)

    return load


def _settings(number_format: NumberFormat) -> ClassifierReward:
    return ClassifierReward(name="random", model="./random", dtype=number_format)


def _check(bench: Bench, load: Load, formats: Sequence[NumberFormat], passes: int = 1) -> Found:
    """Scores of each format alone and together, and both formats beside each other.

    passes: models that read each conversation.
    """
    figures: list[str] = []
    problems: list[str] = []
    scores = {}
    requests = bench.conversations
    for number_format in formats:
        scorer = load(number_format)
        try:
            _scores(scorer, requests[:2])
            found, seconds = timed(lambda scorer=scorer: _scores(scorer, requests))
            alone = np.concatenate([_scores(scorer, [each]) for each in requests[:NUM_ALONE]])
            tokens = passes * _num_tokens(scorer, requests)
        finally:
            scorer.close()
            del scorer
        scores[number_format] = found
        change = worst((alone - found[:NUM_ALONE]).tolist()) / worst(found.tolist())
        speed = bench.speed(tokens, seconds, bench.flops_per_token)
        figures.append(f"{number_format}: {speed}, alone and together within {change:.1g}")
        if not change <= TOLERANCE[number_format]:
            problems.append(
                f"{number_format}: a batch changes scores by {change:.2g} of the largest"
            )
    if len(formats) == 2:
        one, other = (scores[number_format] for number_format in formats)
        correlation = float(np.corrcoef(one, other)[0, 1])
        figures.append(f"correlation of both {correlation:.5f}")
        if not correlation >= MIN_CORRELATION:
            problems.append(f"the scores of both correlate by {correlation:.3f} only")
    return Found(figures, problems)


def _scores(scorer: Any, requests: Sequence[ScoreRequest]) -> npt.NDArray[np.float64]:
    found = scorer.score(requests)
    assert all(score.reward is not None for score in found), found[0]
    return np.array([score.reward for score in found])


def _num_tokens(scorer: Any, requests: Sequence[ScoreRequest]) -> int:
    """Tokens that are computed: those that answers share once."""
    from infra.rewards.heads import common_start
    from infra.rewards.score_rows import encode_requests, scorable

    rows = scorable(encode_requests(scorer.tokenizer, requests, common_start, 2**31))
    return sum(map(len, {row.shared for row in rows})) + sum(len(row.own) for row in set(rows))


def _by_transformers(bench: Bench) -> float:
    """The largest difference between our scores and its own, one at a time, in float32."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from pvar.chat import conversation_token_ids

    requests = bench.conversations[:4]
    scorer = _loader(bench, "classifier")("float32")
    ours = _scores(scorer, requests)
    model = AutoModelForSequenceClassification.from_pretrained(
        bench.classifier(), dtype=torch.float32
    )
    model.to(bench.device).eval().config.pad_token_id = None  # so that it reads the last token
    with torch.inference_mode():
        theirs = [
            model(
                input_ids=torch.tensor(
                    [conversation_token_ids(scorer.tokenizer, each.messages, each.response)],
                    device=bench.device,
                )
            ).logits.item()
            for each in requests
        ]
    return worst((ours - np.array(theirs)).tolist())


def _training_logps(bench: Bench, seed: int) -> npt.NDArray[np.float64]:
    """Of the first conversations' answers, with their end, in float32."""
    from transformers import AutoTokenizer

    from pvar.chat import answer_token_ids, end_token_ids, prompt_token_ids
    from tasks.training.logps import PromptAnswer, answer_logps
    from tasks.training.model import load_in_float32

    tokenizer = AutoTokenizer.from_pretrained(bench.policy(seed))
    end = end_token_ids(tokenizer)
    rows = [
        PromptAnswer(
            tuple(prompt_token_ids(tokenizer, each.messages)),
            tuple(answer_token_ids(tokenizer, each.response, end)),
        )
        for each in bench.conversations[:NUM_ALONE]
    ]
    logps = answer_logps(load_in_float32(bench.policy(seed)), rows, autocast=False)
    return np.array([logps[row] for row in rows])
