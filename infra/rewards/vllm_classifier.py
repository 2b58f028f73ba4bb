"""Scoring with one-logit classifiers in vLLM: its pooling runner instead of transformers.

For large reward models on GPUs: vLLM batches requests, shares prompts by its prefix cache and can
split a model over GPUs. Conversations are rendered and encoded as in `classifier.py`, the reward is
the raw logit (no sigmoid), and the same self-test checks whether the scores can be trusted. Both
backends agree up to the rounding of `dtype`. Models with other heads need transformers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.engines.vllm_sampler import Engine, classify, close_engine, open_engine
from infra.rewards.families import read_checkpoint_config, recognise
from infra.rewards.heads import check_one_logit, common_start
from infra.rewards.score_rows import ScoreRow, encode_requests, scorable, to_scores
from infra.rewards.self_test import PROBES, check_scores
from pvar.errors import ConfigError
from pvar.number_format import resolved
from pvar.ports import ScoreRequest
from pvar.records import Score
from pvar.reward_config import ClassifierReward
from pvar.runtime_config import RuntimeConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class VllmClassifierScorer:
    """A tested reward model in a running engine."""

    engine: Engine
    tokenizer: "PreTrainedTokenizerBase"
    max_length_tokens: int

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in order; rewards, or None with a reason (`rows.py`)."""
        encoded = encode_requests(self.tokenizer, requests, common_start, self.max_length_tokens)
        return to_scores(requests, encoded, self.evaluate(scorable(encoded)))

    def evaluate(self, rows: Sequence[ScoreRow]) -> dict[ScoreRow, float | None]:
        """Rewards of rows; None if the engine failed. Equal rows are scored once."""
        distinct = list(dict.fromkeys(rows))
        rewards = classify(self.engine, [[*row.shared, *row.own] for row in distinct])
        return dict(zip(distinct, rewards, strict=True))

    def close(self) -> None:
        """End the engine's processes."""
        close_engine(self.engine)


def load_vllm_classifier(
    folder: Path, settings: ClassifierReward, runtime: RuntimeConfig
) -> VllmClassifierScorer:
    """Start an engine for a reward model and test whether its scores can be trusted.

    Raises ConfigError if vLLM is not installed or the head needs transformers, ModelError for a
    model that is not of a supported form or has several logits, ScoringError for one whose scores
    depend on the batch.
    """
    from transformers import AutoConfig, AutoTokenizer

    checkpoint = read_checkpoint_config(folder)
    family = recognise(folder, checkpoint)
    if family.head != "one_logit":
        raise ConfigError(
            f"{folder}: runtime.scoring_backend is vllm, which supports only models with one "
            f"logit, but this model's head is {family.head}; set it to transformers"
        )
    check_one_logit(folder, checkpoint)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    context = config.get_text_config().max_position_embeddings
    dtype = resolved(settings.dtype)
    limit = min(settings.max_length_tokens, context)
    engine = open_engine(folder, runtime, runner="pooling", dtype=dtype, max_model_len=limit)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    scorer = VllmClassifierScorer(engine, tokenizer, limit)
    try:
        probes = encode_requests(tokenizer, PROBES, common_start, limit)
        check_scores(probes, scorer.evaluate, dtype)
    except BaseException:  # stopped from outside, too: the engine is a process
        scorer.close()
        raise
    return scorer
