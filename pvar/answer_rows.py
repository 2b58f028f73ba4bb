r"""Parse a row of a pool: a prompt with the answers, and often the scores, that the data holds.

    UltraFeedback {"instruction": "…", "completions": [{"response": "…", "overall_score": 7.5}, …]}
    SimPO         {"prompt": "…", "all_generated_responses": ["…", …], "all_rm_scores": [0.1, …]}
    Nectar        {"prompt": "\n\nHuman: …\n\nAssistant: ", "answers": [{"answer": "…", "rank": 1}]}
    plain         {"prompt": "…", "responses": ["…", …], "rewards": [1.0, …]}

The first three are the columns of openbmb/UltraFeedback, of princeton-nlp's data for SimPO, and of
berkeley-nest/Nectar. In the plain form, rewards are optional and may be called `scores`, and
prompts are those of `pvar/prompt_rows.py`.

A score that is null or not finite is missing. Nectar ranks its answers (1 is the best): the score
is minus the rank, which keeps the order and says nothing of distances. Of UltraFeedback,
`overall_score` is read. A 10 is missing unless `fine-grained_score`, the mean rating of the single
aspects, is above 4, for the reason given in `pvar/pairs/original.py`.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pvar.pairs.original import MIN_ASPECT_MEAN, SUSPECT_OVERALL_SCORE
from pvar.prompt_rows import parse_prompt
from pvar.records import Prompt
from pvar.row_forms import Fields
from pvar.source_forms import transcript_turns

NO_SCORE = "no_score"
OVERALL_SCORE_BUG = "overall_score_bug"
MIN_ANSWERS = 2
"""Fewer have no preference."""

SCORE_LISTS = {"all_generated_responses": ("all_rm_scores",), "responses": ("rewards", "scores")}
"""List of answers → lists of their scores, of which a row has at most one."""


NESTED = ("completions", "answers")
"""Lists of answers with their scores: UltraFeedback's and Nectar's."""


class PoolAnswer(NamedTuple):
    """An answer that the data holds for a prompt."""

    prompt_id: str
    answer_index: int
    """0-based position among the answers of its row."""
    text: str
    score: float | None
    reason: str | None
    """Why the score is missing."""


class _Given(NamedTuple):
    text: object
    score: object
    is_suspect: bool = False


def parse_pool_prompt(fields: Fields, source: str) -> Prompt | str:
    """The row's prompt (with the split `train`, to be reassigned), or the reason for rejection."""
    prompt = fields.get("prompt")
    if prompt is None:
        prompt = fields.get("instruction")
        if prompt is not None and fields.get("input") not in (None, "", prompt):
            return "input_not_supported"  # Alpaca's: the instruction is about it
    if fields.get("answers") is not None and isinstance(prompt, str):
        prompt = _transcript(prompt) or prompt
    return parse_prompt(fields if prompt is None else {**fields, "prompt": prompt}, source)


def parse_answers(fields: Fields, prompt_id: str) -> tuple[PoolAnswer, ...] | str:
    """The row's answers, or the reason why the row is rejected."""
    given = _given(fields)
    if isinstance(given, str):
        return given
    if len(given) < MIN_ANSWERS:
        return "too_few_answers"
    answers = []
    for index, (text, value, is_suspect) in enumerate(given):
        score = as_number(value)
        if not isinstance(text, str):
            return "answer_not_text"
        if score is None:
            return "score_not_a_number"
        reason = OVERALL_SCORE_BUG if is_suspect else None if math.isfinite(score) else NO_SCORE
        answers.append(PoolAnswer(prompt_id, index, text, None if reason else score, reason))
    return tuple(answers)


def nested_scores(fields: Fields) -> list[float] | str | None:
    """Scores of a list of answers with their texts (UltraFeedback, Nectar), NaN where missing.

    None if the row has no such list, or the reason why it cannot be read.
    """
    if all(fields.get(name) is None for name in NESTED):
        return None
    given = _given(fields)
    if isinstance(given, str):
        return given
    scores = []
    for each in given:
        score = as_number(each.score)
        if score is None:
            return "score_not_a_number"
        scores.append(math.nan if each.is_suspect else score)
    return scores


def _given(fields: Fields) -> list[_Given] | str:
    """The answers as they are in the row, or the reason why it is rejected."""
    if fields.get("completions") is not None:
        return _objects(fields["completions"], _completion)
    if fields.get("answers") is not None:
        return _objects(fields["answers"], _ranked)
    for name, score_names in SCORE_LISTS.items():
        if fields.get(name) is not None:
            scores = [fields[each] for each in score_names if fields.get(each) is not None]
            return _aligned(fields[name], scores)
    return "no_answers"


def _objects(value: object, parse: Callable[[Mapping[str, object]], _Given]) -> list[_Given] | str:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        return "answer_not_text"
    return [parse(item) for item in value]


def _completion(item: Mapping[str, object]) -> _Given:
    score, aspects = as_number(item.get("overall_score")), as_number(item.get("fine-grained_score"))
    is_high = score is not None and score >= SUSPECT_OVERALL_SCORE
    is_checked = aspects is not None and aspects > MIN_ASPECT_MEAN
    return _Given(item.get("response"), item.get("overall_score"), is_high and not is_checked)


def _ranked(item: Mapping[str, object]) -> _Given:
    rank = as_number(item.get("rank"))
    return _Given(item.get("answer"), item.get("rank") if rank is None else -rank)


def _aligned(texts: object, scores: list[object]) -> list[_Given] | str:
    if not isinstance(texts, list):
        return "answer_not_text"
    if not scores:
        return [_Given(text, None) for text in texts]
    if len(scores) > 1 or not isinstance(scores[0], list) or len(scores[0]) != len(texts):
        return "scores_do_not_match_answers"
    return [_Given(text, score) for text, score in zip(texts, scores[0], strict=True)]


def as_number(value: object) -> float | None:
    """The number, NaN if it is missing, None if it is not a number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _transcript(text: str) -> list[dict[str, str]] | None:
    """The messages of a transcript that ends where the assistant answers; None if it is none."""
    turns = transcript_turns(text)
    return None if turns is None or turns[-1]["content"].strip() else turns[:-1]
