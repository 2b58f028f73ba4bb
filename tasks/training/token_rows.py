"""Convert pairs to token ids for training, with `pvar/chat.py`.

A row is a prompt up to the start of the answer, and two answers that end with one end-of-turn
token, as the model ends them. A truncated answer has no end-of-turn token, so that the model does
not learn to stop in the middle of a sentence. Rows that are too long are dropped and counted, not
truncated, and so are rows whose conversation the model's chat template refuses.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pvar.chat import answer_token_ids, end_token_ids, is_surely_longer, prompt_token_ids
from pvar.digest import digest
from pvar.errors import ChatTemplateError
from pvar.records import Pair, Response
from tasks.engine.tables import RejectedRow, TokenPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EncodedPairs(NamedTuple):
    """Pairs as token ids."""

    pairs: list[TokenPair]
    rejected: list[RejectedRow]

    @property
    def reasons(self) -> dict[str, int]:
        """Rule → number of rejected pairs, in the order of the rules' names."""
        return dict(sorted(Counter(row.rule for row in self.rejected).items()))


class Neighbours(NamedTuple):
    """A pair and its neighbour, whose answers are to another prompt (KTO)."""

    pair: TokenPair
    other: TokenPair


def encode_pairs(
    pairs: Sequence[Pair],
    responses: Iterable[Response],
    tokenizer: "PreTrainedTokenizerBase",
    max_length_tokens: int,
) -> EncodedPairs:
    """Token ids of each pair; `responses` are all sampled ones, which say if one was truncated."""
    cut_off = cut_off_answers(responses)
    end = end_token_ids(tokenizer)
    encoded, rejected = [], []
    for pair in pairs:
        longer = max(pair.chosen, pair.rejected, key=len)
        texts = (*(message.content for message in pair.messages), longer)
        if is_surely_longer(tokenizer, texts, max_length_tokens):
            detail = f"{sum(map(len, texts))} characters"
            rejected.append(RejectedRow(pair.prompt_id, "too_long", detail))
            continue
        try:
            prompt = prompt_token_ids(tokenizer, pair.messages)
        except ChatTemplateError as error:
            rejected.append(RejectedRow(pair.prompt_id, "template_refused", str(error)))
            continue
        chosen, dispreferred = (
            answer_token_ids(tokenizer, text, () if (pair.prompt_id, text) in cut_off else end)
            for text in (pair.chosen, pair.rejected)
        )
        length = len(prompt) + max(len(chosen), len(dispreferred))
        if length > max_length_tokens:
            rejected.append(RejectedRow(pair.prompt_id, "too_long", f"{length} tokens"))
        else:
            encoded.append(
                TokenPair(pair_id_of(pair), pair.prompt_id, prompt, chosen, dispreferred)
            )
    return EncodedPairs(encoded, rejected)


def pair_id_of(pair: Pair) -> str:
    """Id of a pair: a hash of its prompt's id and both answers."""
    return digest([pair.prompt_id, pair.chosen, pair.rejected])


def cut_off_answers(responses: Iterable[Response]) -> frozenset[tuple[str, str]]:
    """(prompt id, text) of the truncated answers."""
    return frozenset(
        (response.prompt_id, response.text)
        for response in responses
        if response.finish_reason == "length"
    )


def with_neighbours(pairs: Sequence[TokenPair]) -> list[Neighbours]:
    """Every pair with one of another prompt, if there is one, in KTO's training order.

    KTO's estimate of the divergence from the reference needs mismatched answers: those of the
    previous pair. The order is by prompt id, a hash, and so practically random. First pairs of all
    prompts come before all second pairs, so that neighbours have different prompts.
    """
    seen: Counter[str] = Counter()
    places = []
    for pair in sorted(pairs, key=lambda pair: (pair.prompt_id, pair.pair_id)):
        seen[pair.prompt_id] += 1
        places.append((seen[pair.prompt_id], pair))
    ordered = [pair for _, pair in sorted(places, key=lambda place: place[0])]
    before = [*ordered[-1:], *ordered[:-1]]
    return [Neighbours(pair, other) for pair, other in zip(ordered, before, strict=True)]
