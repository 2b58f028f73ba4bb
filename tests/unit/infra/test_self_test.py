"""The self-test lets sound models pass and refuses those whose scores depend on the batch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForSequenceClassification

from infra.rewards.score_rows import Ids, ScoreRow, Unscorable, encode_requests, scorable
from infra.rewards.self_test import PROBES, check_scores
from pvar.errors import ScoringError
from tests.unit.infra.tiny_models import END, save_classifier

Evaluate = Callable[[Sequence[ScoreRow]], Mapping[ScoreRow, float]]

ROWS = [ScoreRow((1,), (2,) * length) for length in (1, 2, 5)]


def test_scores_that_do_not_depend_on_neighbours_pass() -> None:
    check_scores(ROWS, lambda rows: {row: float(len(row.own)) for row in rows}, "float32")


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-4), ("bfloat16", 5e-2)])
def test_tolerance_is_a_share_of_the_largest_score(dtype: str, allowed: float) -> None:
    def shifted_by(share: float) -> Evaluate:
        # The largest score alone is 5.
        return lambda rows: {row: len(row.own) + 5 * share * (len(rows) > 1) for row in rows}

    check_scores(ROWS, shifted_by(0.9 * allowed), dtype)  # type: ignore[arg-type]
    with pytest.raises(ScoringError, match="depend on the batch"):
        check_scores(ROWS, shifted_by(1.1 * allowed), dtype)  # type: ignore[arg-type]


def test_score_that_becomes_nan_in_a_batch_is_refused() -> None:
    def evaluate(rows: Sequence[ScoreRow]) -> Mapping[ScoreRow, float]:
        return {row: len(row.own) if len(rows) == 1 else float("nan") for row in rows}

    with pytest.raises(ScoringError, match="nan in a batch"):
        check_scores(ROWS, evaluate, "float32")


def test_model_that_does_not_look_at_the_answer_is_refused() -> None:
    """ArmoRM under the wrong class gives about −2 everywhere (Online-RLHF #23)."""
    with pytest.raises(ScoringError, match="the same score -2"):
        check_scores(ROWS, lambda rows: dict.fromkeys(rows, -2.0), "float32")


def test_template_that_does_not_take_plain_conversations_is_refused() -> None:
    with pytest.raises(ScoringError, match="template_refused"):
        check_scores([*ROWS, Unscorable("template_refused")], dict, "float32")


def batch_score(folder: Path, *, side: str, masked: bool) -> Evaluate:
    """Transformers' classifier as careless scripts use it: the score of the last column."""
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()

    def pad(ids: Ids, width: int, value: int) -> list[int]:
        padding = [value] * (width - len(ids))
        return [*padding, *ids] if side == "left" else [*ids, *padding]

    def evaluate(rows: Sequence[ScoreRow]) -> Mapping[ScoreRow, float]:
        texts = [row.shared + row.own for row in rows]
        width = max(map(len, texts))
        ids = torch.tensor([pad(text, width, END) for text in texts])
        mask = torch.tensor([pad((1,) * len(text), width, 0) for text in texts])
        with torch.inference_mode():
            states = model.model(ids, attention_mask=mask if masked else None).last_hidden_state
            scores = model.score(states[:, -1])[:, 0]
        return dict(zip(rows, scores.tolist(), strict=True))

    return evaluate


@pytest.mark.parametrize(
    ("side", "masked", "passes"),
    [("left", True, True), ("left", False, False), ("right", True, False), ("right", False, False)],
)
def test_wrong_padding_and_missing_masks_are_found(
    tmp_path: Path, side: str, masked: bool, passes: bool
) -> None:
    folder = save_classifier(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = scorable(encode_requests(tokenizer, PROBES, lambda ids, prompt: len(prompt), 1000))
    evaluate = batch_score(folder, side=side, masked=masked)

    # Padded on the left under a mask, a model with rotary positions scores as it should.
    if passes:
        check_scores(rows, evaluate, "float32")
    else:
        with pytest.raises(ScoringError, match="depend on the batch"):
            check_scores(rows, evaluate, "float32")
