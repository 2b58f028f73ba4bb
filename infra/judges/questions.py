"""The questions to a language model as judge, and the parsing of its replies.

    AlpacaEval   one token, "m" or "M", with the log-probabilities of both; without these, the text
    ArenaHard    a text that ends in [[A>>B]], [[A>B]], [[A=B]], [[B>A]] or [[B>>A]]

Wording and parsing follow the benchmarks (`pvar/evaluation/`). The first answer of a comparison is
shown first (m, A), so a preference is always for the second. A model's thought is never read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pvar.digest import digest
from pvar.evaluation.alpaca_eval_judge import (
    DEFAULT_TEMPLATE,
    FIRST_TOKEN,
    SECOND_TOKEN,
    judge_messages,
    preference_from_logprobs,
    preference_from_text,
    text_evidence,
    token_evidence,
)
from pvar.evaluation.arena_hard import JudgedQuestion, outcomes
from pvar.evaluation.arena_hard_judge import (
    CONTINUE,
    OWN_ANSWER_FIRST,
    JudgeTemplate,
    game_messages,
    parse_verdict,
    wants_continuation,
)
from pvar.evaluation.style import Version
from pvar.judging import Identity, prompt_text
from pvar.records import Comparison, Message

NO_VERDICT = "no_verdict"
TRUNCATED = "truncated"
ONLY_THOUGHT = "only_thought"
"""The model thought until `max_tokens` and gave no answer."""


class Request(NamedTuple):
    """One request to a chat model."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    top_logprobs: int | None = None
    """Number of top log-probabilities to return with the reply; None for none."""


class Reply(NamedTuple):
    """The model's reply."""

    text: str
    """The answer, without the model's thought."""
    is_truncated: bool
    """Whether the reply reached `max_tokens`."""
    top_logprobs: Mapping[str, float]
    """Top log-probabilities of the first token; empty if not requested or not supported."""
    has_thought: bool = False
    """Whether the model thought before it answered. The first token is then one of its thought."""
    served_model: str | None = None
    """The model's name in the reply."""
    system_fingerprint: str | None = None

    @property
    def is_only_thought(self) -> bool:
        """Whether there is no answer."""
        return self.has_thought and not self.text.strip()


class Reading(NamedTuple):
    """The preference of a reply."""

    preference: float | None
    """Probability in [0, 1] that the second answer is better."""
    evidence: str | None
    reason: str | None = None
    """Why the preference is missing."""


Ask = Callable[[Request], Reply]


class Questions(Protocol):
    """A way to ask a model for a preference."""

    @property
    def identity(self) -> Identity:
        """Its kind, the digest of its wording, and its sampling parameters."""
        ...

    def request(self, comparison: Comparison) -> Request:
        """The first request about a comparison."""
        ...

    def put(self, comparison: Comparison, ask: Ask) -> Reading:
        """Judge one comparison. Errors of `ask` are not caught."""
        ...


@dataclass(frozen=True)
class AlpacaEval:
    """The odds of two tokens: P(M) / (P(m) + P(M)), as in AlpacaEval 2."""

    template: str = DEFAULT_TEMPLATE
    """ChatML with {instruction}, {output_1} and {output_2}."""

    @property
    def identity(self) -> Identity:
        """The leaderboard's own parameters; temperature 1 leaves the log-probabilities alone."""
        return {
            "kind": "alpaca_eval",
            "template": digest(self.template),
            "max_tokens": 1,
            "temperature": 1.0,
            "top_logprobs": 5,
        }

    def request(self, comparison: Comparison) -> Request:
        """One token."""
        messages = judge_messages(
            prompt_text(comparison.messages),
            comparison.first,
            comparison.second,
            swapped=False,
            template=self.template,
        )
        return Request(messages, max_tokens=1, temperature=1.0, top_logprobs=5)

    def put(self, comparison: Comparison, ask: Ask) -> Reading:
        """Ask for one token. Without log-probabilities of it, the reply's text decides."""
        reply = ask(self.request(comparison))
        if reply.is_only_thought:
            return Reading(None, reply.text, ONLY_THOUGHT)
        if reply.has_thought or not reply.top_logprobs:
            preference, evidence = preference_from_text(reply.text), text_evidence(reply.text)
        else:
            odds = {
                token: reply.top_logprobs[token]
                for token in (FIRST_TOKEN, SECOND_TOKEN)
                if token in reply.top_logprobs
            }
            preference = preference_from_logprobs(odds, swapped=False)
            evidence = token_evidence(odds)
        if preference is None:
            return Reading(None, reply.text, NO_VERDICT)
        return Reading(preference - 1, evidence)  # from 1 (first) to 2 (second)


@dataclass(frozen=True)
class ArenaHard:
    """A reasoned verdict in words, as in Arena-Hard. Here > and >> are both a win.

    The evidence is the whole text, from which Arena-Hard's own score counts >> three times.
    """

    version: Version
    max_tokens: int
    temperature: float
    template: JudgeTemplate = OWN_ANSWER_FIRST

    @property
    def identity(self) -> Identity:
        """Version (of the parsing rules), wording and sampling parameters."""
        return {
            "kind": "arena_hard",
            "version": self.version,
            "template": self.template.digest,
            "max_tokens": self.max_tokens,
            "temperature": float(self.temperature),  # 0 and 0.0 are one judge
        }

    def request(self, comparison: Comparison) -> Request:
        """A judgment."""
        messages = game_messages(
            prompt_text(comparison.messages),
            comparison.first,
            comparison.second,
            game=1,
            template=self.template,
        )
        return Request(messages, self.max_tokens, self.temperature)

    def put(self, comparison: Comparison, ask: Ask) -> Reading:
        """Ask for a judgment. If the verdict is missing, v0.1 asks for it a second time."""
        request = self.request(comparison)
        reply = ask(request)
        judgment = reply.text
        if reply.is_only_thought:
            return Reading(None, judgment, ONLY_THOUGHT)
        if self.version == "v0.1" and wants_continuation(judgment):
            said = (Message("assistant", judgment), Message("user", CONTINUE))
            reply = ask(request._replace(messages=(*request.messages, *said)))
            judgment = f"{judgment}\n{reply.text}"
        preference = _preference(judgment, self.version)
        if preference is None:
            return Reading(None, judgment, TRUNCATED if reply.is_truncated else NO_VERDICT)
        return Reading(preference, judgment)


def _preference(judgment: str, version: Version) -> float | None:
    """1 if B (the second answer) wins, ½ for a tie, 0 if A wins."""
    label = parse_verdict(judgment, version)
    # Game 1 shows the baseline as A: its outcome for the model is the preference for B.
    games = outcomes(JudgedQuestion("", "", "", None, label, label), version)
    return games[0].value if games else None
