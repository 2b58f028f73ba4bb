"""A policy without a model, which generates random words with a prompt-dependent tone.

For tests and for trying out the workflow. Each prompt has a spread in [0, 1) from a hash of its id
and each answer a tone in (−spread, spread): the fraction of its words that are warm (tone > 0) or
bitter (tone < 0). So with a sentiment lexicon, some prompts have a low and others a high preference
variance. A word counts as one token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pvar.digest import digest, response_id
from pvar.ports import Rejection, SampleRequest
from pvar.records import Response

_WARM = ("good", "great", "happy", "love", "wonderful", "excellent", "beautiful", "nice")
_BITTER = ("bad", "terrible", "sad", "hate", "awful", "horrible", "ugly", "poor")
_NEUTRAL = ("the", "table", "a", "door", "paper", "and", "morning", "street", "number", "green")


@dataclass(frozen=True)
class FakeSampler:
    """A sampler whose answers depend only on the prompt id, the seed and the sample index."""

    max_prompt_tokens: int
    """Prompts of more words are rejected (`prompt_too_long`)."""
    max_new_tokens: int
    """Length of truncated answers, and maximum of others, including the end token (≥ 2)."""
    truncated_share: float = 0.0
    """Share of the answers, in [0, 1], that run into the token limit."""
    empty_share: float = 0.0
    """Share of the answers, in [0, 1 − truncated_share], that end at once."""

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        """Answer each prompt `num_responses` times, in order, or reject it."""
        responses: list[Response] = []
        rejections: list[Rejection] = []
        for request in requests:
            if _num_words(request) > self.max_prompt_tokens:
                rejections.append(Rejection(request.prompt_id, "prompt_too_long"))
                continue
            responses += (
                self._answer(request.prompt_id, seed, index) for index in range(num_responses)
            )
        return responses, rejections

    def close(self) -> None:
        """Do nothing: there is no model."""

    def _answer(self, prompt_id: str, seed: int, index: int) -> Response:
        rng = _rng(["answer", prompt_id, seed, index])
        fate = rng.random()
        truncated = fate < self.truncated_share
        if truncated:
            num_words = self.max_new_tokens
        elif fate < self.truncated_share + self.empty_share:
            num_words = 0
        else:
            num_words = int(rng.integers(1, self.max_new_tokens))
        text = " ".join(_words(rng, num_words, tone=_spread(prompt_id) * rng.uniform(-1, 1)))
        return Response(
            prompt_id,
            response_id(prompt_id, index, text),
            index,
            text,
            num_tokens=num_words if truncated else num_words + 1,
            finish_reason="length" if truncated else "stop",
        )


def _words(rng: np.random.Generator, num_words: int, *, tone: float) -> list[str]:
    """Draw words; on average a fraction |tone| of them has the tone's sign."""
    charged = _WARM if tone > 0 else _BITTER
    return [
        str(rng.choice(charged if rng.random() < abs(tone) else _NEUTRAL)) for _ in range(num_words)
    ]


def _spread(prompt_id: str) -> float:
    # Squared, because lexicon scores saturate after a few charged words: half are below ¼.
    return float(_rng(["spread", prompt_id]).random()) ** 2


def _num_words(request: SampleRequest) -> int:
    return sum(len(message.content.split()) for message in request.messages)


def _rng(key: list[str | int]) -> np.random.Generator:
    return np.random.default_rng(int(digest(key), 16))
