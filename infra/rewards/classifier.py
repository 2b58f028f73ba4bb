"""Scoring with reward models that read a reward from a decoder's last hidden states.

The conversation with its answer is rendered by the model's own chat template and scored as a whole.
A conversation that is too long gets no reward, because a truncated text is another text. The
computation is in `backbone.py` and `heads.py`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from infra.rewards.backbone import Backbone, evaluate, make_backbone
from infra.rewards.checkpoint import load_checkpoint, max_context_tokens
from infra.rewards.families import read_checkpoint_config, recognise
from infra.rewards.heads import Head, load_head
from infra.rewards.score_rows import ScoreRow, encode_requests, scorable, to_scores
from infra.rewards.self_test import PROBES, check_scores
from pvar.number_format import resolved
from pvar.ports import ScoreRequest
from pvar.records import Score
from pvar.reward_config import ClassifierReward

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifierScorer:
    """A loaded and tested reward model."""

    backbone: Backbone
    head: Head
    tokenizer: "PreTrainedTokenizerBase"
    max_length_tokens: int

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in order; float32 rewards, or None with a reason (`rows.py`)."""
        encoded = encode_requests(self.tokenizer, requests, self.head.split, self.max_length_tokens)
        return to_scores(requests, encoded, self.evaluate(scorable(encoded)))

    def evaluate(self, rows: Sequence[ScoreRow]) -> dict[ScoreRow, float]:
        """Rewards of rows."""
        return evaluate(self.backbone, rows, self.head.read)

    def close(self) -> None:
        """Do nothing: the memory is freed with this object."""


def load_classifier_scorer(
    folder: Path, settings: ClassifierReward, tokens_per_batch: int | None
) -> ClassifierScorer:
    """Load a reward model and test whether its scores can be trusted.

    A batch has at most `tokens_per_batch` padded tokens; None uses the default of the device.
    Raises ModelError for a model that is not of a supported form, lacks weights or has several
    logits, and ScoringError for one whose scores depend on the batch.
    """
    from transformers import AutoModel

    began = perf_counter()
    config = read_checkpoint_config(folder)
    family = recognise(folder, config)
    dtype = resolved(settings.dtype)
    checkpoint = load_checkpoint(folder, AutoModel, dtype)
    head = load_head(folder, config, family, checkpoint)
    scorer = ClassifierScorer(
        make_backbone(checkpoint.model, checkpoint.tokenizer.pad_token_id, tokens_per_batch),
        head,
        checkpoint.tokenizer,
        max_context_tokens(checkpoint.model, settings.max_length_tokens),
    )
    probes = encode_requests(
        checkpoint.tokenizer, PROBES, head.split, max_context_tokens(checkpoint.model, 2**31)
    )
    check_scores(probes, scorer.evaluate, dtype)
    logger.info(
        "reward model %s (%s, %s): loaded and tested in %.1f s",
        settings.name,
        config.architectures[0],
        dtype,
        perf_counter() - began,
    )
    return scorer
