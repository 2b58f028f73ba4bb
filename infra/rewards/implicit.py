"""Implicit rewards of a policy against its reference: β · (log π_θ(y|x) − log π_ref(y|x)).

The log-probability of an answer is the sum over its tokens, the end-of-turn tokens of the chat
template included: all that the rendered conversation has beyond the rendered prompt, as TRL's DPO
trainer counts them. Both models run in float32; logits are made for answer tokens only, and for few
at a time (a batch of 16384 tokens would have 3 GB of them at SmolLM2's vocabulary).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from infra.rewards.backbone import Backbone, evaluate, make_backbone
from infra.rewards.checkpoint import Checkpoint, load_checkpoint, max_context_tokens
from infra.rewards.score_rows import Ids, ScoreRow, encode_requests, scorable, to_scores
from infra.rewards.self_test import PROBES, check_scores
from pvar.errors import ScoringError
from pvar.implicit_reward import implicit_rewards
from pvar.ports import ScoreRequest
from pvar.records import Score

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGIT_ROWS = 1024
"""Maximum tokens whose logits are in memory (200 MB in float32 for a vocabulary of 50,000)."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model that computes log-probabilities of answers."""

    backbone: Backbone
    output_weight: "torch.Tensor"
    """(vocabulary, hidden_size)"""
    max_logit: float | None
    """Gemma 2's final_logit_softcapping: logits are c · tanh(logits / c)."""

    def evaluate(self, rows: Sequence[ScoreRow]) -> dict[ScoreRow, float]:
        """Log-probabilities, in nats, of the rows' own tokens without the first (see `_split`)."""
        return evaluate(self.backbone, rows, self.read)

    def read(self, rows: Sequence[ScoreRow], states: Sequence["torch.Tensor"]) -> "torch.Tensor":
        """Sum the log-probabilities of each row, (num_rows,)."""
        import torch

        lengths = [len(row.own) - 1 for row in rows]
        before = torch.cat([state[:-1] for state in states])
        tokens = torch.cat([torch.tensor(row.own[1:], device=before.device) for row in rows])
        chunks = zip(torch.split(before, LOGIT_ROWS), torch.split(tokens, LOGIT_ROWS), strict=True)
        logps = torch.cat([self._log_probabilities(*chunk) for chunk in chunks])
        return torch.stack([row.sum() for row in torch.split(logps, lengths)])

    def _log_probabilities(self, states: "torch.Tensor", tokens: "torch.Tensor") -> "torch.Tensor":
        import torch

        logits = states @ self.output_weight.T
        if self.max_logit is not None:
            logits = self.max_logit * torch.tanh(logits / self.max_logit)
        return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)


@dataclass(frozen=True)
class ImplicitScorer:
    """A policy and its reference."""

    policy: LanguageModel
    reference: LanguageModel
    tokenizer: "PreTrainedTokenizerBase"
    beta: float
    max_length_tokens: int

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in order; float32 rewards, or None with a reason (`rows.py`)."""
        encoded = encode_requests(self.tokenizer, requests, _split, self.max_length_tokens)
        rows = sorted(set(scorable(encoded)))
        policy, reference = self.policy.evaluate(rows), self.reference.evaluate(rows)
        rewards = implicit_rewards(
            np.array([policy[row] for row in rows], np.float32),
            np.array([reference[row] for row in rows], np.float32),
            beta=self.beta,
        )
        return to_scores(requests, encoded, dict(zip(rows, rewards.tolist(), strict=True)))

    def close(self) -> None:
        """Do nothing: the memory is freed with this object."""


def _split(conversation: Ids, prompt: Ids) -> int | None:
    """At the prompt's last token: its state predicts the answer's first token."""
    begins = conversation[: len(prompt)] == prompt and len(conversation) > len(prompt)
    return len(prompt) - 1 if begins else None


def load_implicit_scorer(
    policy_folder: Path,
    reference_folder: Path,
    beta: float,
    tokens_per_batch: int | None,
    max_length_tokens: int = 2**31,
) -> ImplicitScorer:
    """Load both models and test them; they must encode conversations as the same token ids.

    A batch has at most `tokens_per_batch` padded tokens; None uses the default of the device.
    Conversations longer than `max_length_tokens`, or than either model's context, get no reward.
    Raises ModelError for a folder that cannot be loaded, and ScoringError for models that cannot
    be compared or whose logits are computed in an unsupported way.
    """
    from transformers import AutoModelForCausalLM

    policy = load_checkpoint(policy_folder, AutoModelForCausalLM, "float32")
    reference = load_checkpoint(reference_folder, AutoModelForCausalLM, "float32")
    limit = max_context_tokens(reference.model, max_context_tokens(policy.model, max_length_tokens))
    probes = encode_requests(policy.tokenizer, PROBES, _split, limit)
    if probes != encode_requests(reference.tokenizer, PROBES, _split, limit):
        raise ScoringError(
            f"{policy_folder} and {reference_folder} encode the same conversation as different "
            "token ids: their tokenizers or chat templates differ, so they cannot be compared; "
            "set the reference to the model from which the policy was trained"
        )
    models = [_language_model(checkpoint, tokens_per_batch) for checkpoint in (policy, reference)]
    for checkpoint, model in zip((policy, reference), models, strict=True):
        check_scores(probes, model.evaluate, "float32")
        _check_output_layer(checkpoint, model, scorable(probes)[0])
    return ImplicitScorer(models[0], models[1], policy.tokenizer, beta, limit)


def _language_model(checkpoint: Checkpoint, tokens_per_batch: int | None) -> LanguageModel:
    model = checkpoint.model
    return LanguageModel(
        make_backbone(
            cast("PreTrainedModel", model.base_model),
            checkpoint.tokenizer.pad_token_id,
            tokens_per_batch,
        ),
        model.get_output_embeddings().weight,  # type: ignore[no-untyped-call]
        getattr(model.config, "final_logit_softcapping", None),
    )


def _check_output_layer(checkpoint: Checkpoint, model: LanguageModel, row: ScoreRow) -> None:
    """Reject models that compute logits in an unsupported way (scaled, biased, …)."""
    import torch

    ids = torch.tensor([row.shared + row.own], device=checkpoint.model.device)
    with torch.inference_mode():
        logps = checkpoint.model(input_ids=ids).logits[0, :-1].float().log_softmax(dim=1)
    answer = range(len(row.shared), ids.shape[1] - 1)
    expected = float(sum(logps[i, ids[0, i + 1]] for i in answer))
    found = model.evaluate([row])[row]
    if not abs(found - expected) <= 1e-3 * abs(expected):
        raise ScoringError(
            f"a test answer's log-probability is {found:.6g} here and {expected:.6g} by the model "
            f"itself: {type(checkpoint.model).__name__} computes its logits in an unsupported way; "
            "use another model"
        )
