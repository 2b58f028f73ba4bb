"""From pairs to the token ids that are trained on, made by `pvar/chat.py` and nobody else.

A row is a prompt up to where the answer begins, and two answers that end as the model ends one: the
end-of-turn token once and nothing after it. An answer that ran into the token limit when it was
sampled has no end, so that the model is not taught to stop in the middle of a sentence. Rows that
are too long are left out and counted, never cut.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pvar.chat import answer_token_ids, end_token_ids, prompt_token_ids
from pvar.digest import digest
from pvar.records import Pair, Response
from tasks.engine.tables import RejectedRow, TokenPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EncodedPairs(NamedTuple):
    """Pairs as token ids."""

    pairs: list[TokenPair]
    rejected: list[RejectedRow]


class Neighbours(NamedTuple):
    """A pair and another one, whose answers fit its prompt only by chance (KTO)."""

    pair: TokenPair
    other: TokenPair


def encode_pairs(
    pairs: Sequence[Pair],
    responses: Iterable[Response],
    tokenizer: "PreTrainedTokenizerBase",
    max_length_tokens: int,
) -> EncodedPairs:
    """Token ids of each pair; `responses` are all that were sampled, for how they ended."""
    cut_off = cut_off_answers(responses)
    end = end_token_ids(tokenizer)
    encoded, rejected = [], []
    for pair in pairs:
        prompt = prompt_token_ids(tokenizer, pair.messages)
        chosen, dispreferred = (
            answer_token_ids(tokenizer, text, () if (pair.prompt_id, text) in cut_off else end)
            for text in (pair.chosen, pair.rejected)
        )
        length = len(prompt) + max(len(chosen), len(dispreferred))
        if length > max_length_tokens:
            rejected.append(RejectedRow(pair.prompt_id, "too_long", f"{length} tokens"))
        else:
            pair_id = digest([pair.prompt_id, pair.chosen, pair.rejected])
            encoded.append(TokenPair(pair_id, pair.prompt_id, prompt, chosen, dispreferred))
    return EncodedPairs(encoded, rejected)


def cut_off_answers(responses: Iterable[Response]) -> frozenset[tuple[str, str]]:
    """(prompt id, text) of the answers that ran into the token limit."""
    return frozenset(
        (each.prompt_id, each.text) for each in responses if each.finish_reason == "length"
    )


def with_neighbours(pairs: Sequence[TokenPair]) -> list[Neighbours]:
    """Every pair with one of another prompt, if there is one; the order is KTO's order of training.

    KTO's estimate of the divergence from the reference needs mismatched answers: those of the pair
    before. The order is by prompt id, a hash, and so is as good as random; a prompt's first pairs
    come before all second ones, so that neighbours have different prompts.
    """
    seen: Counter[str] = Counter()
    places = []
    for pair in sorted(pairs, key=lambda pair: (pair.prompt_id, pair.pair_id)):
        seen[pair.prompt_id] += 1
        places.append((seen[pair.prompt_id], pair))
    ordered = [pair for _, pair in sorted(places, key=lambda place: place[0])]
    before = [*ordered[-1:], *ordered[:-1]]
    return [Neighbours(pair, other) for pair, other in zip(ordered, before, strict=True)]
