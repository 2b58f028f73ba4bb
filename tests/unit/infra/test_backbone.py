"""Memory: batches shrink until they fit, without changing a score; what never fits is an error."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from infra.rewards.backbone import Reader, evaluate
from infra.rewards.classifier import ClassifierScorer, load_classifier_scorer
from infra.rewards.score_rows import ScoreRow
from pvar.errors import ScoringError
from pvar.reward_config import ClassifierReward
from tests.unit.infra.tiny_models import save_classifier

ROWS = [
    ScoreRow(tuple(range(4, 4 + prompt)), tuple(range(50, 50 + answer)))
    for prompt in (0, 3, 9, 20)
    for answer in (1, 2, 8, 30)
]


@pytest.fixture
def scorer(tmp_path: Path) -> ClassifierScorer:
    settings = ClassifierReward(name="tiny", model="./tiny", dtype="float32")
    return load_classifier_scorer(save_classifier(tmp_path), settings, 100_000)


def limited(read: Reader, max_rows: int) -> Reader:
    """A reader that runs out of memory for more rows."""

    def read_few(rows: Sequence[ScoreRow], states: Sequence[torch.Tensor]) -> torch.Tensor:
        if len(rows) > max_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return read(rows, states)

    return read_few


def test_scores_survive_a_lack_of_memory(scorer: ClassifierScorer) -> None:
    scores = evaluate(scorer.backbone, ROWS, limited(scorer.head.read, 2))

    assert scores == pytest.approx(scorer.evaluate(ROWS), rel=1e-4)


def test_conversation_that_never_fits_is_an_error(scorer: ClassifierScorer) -> None:
    with pytest.raises(ScoringError, match="a single conversation does not fit in memory"):
        evaluate(scorer.backbone, ROWS, limited(scorer.head.read, 0))


def test_sharing_prompts_changes_no_score(scorer: ClassifierScorer) -> None:
    assert scorer.backbone.shares_prompts
    in_full = replace(scorer.backbone, shares_prompts=False)

    scores = evaluate(in_full, ROWS, scorer.head.read)

    assert scores == pytest.approx(scorer.evaluate(ROWS), rel=1e-4)
    assert len(scores) == len(ROWS)
