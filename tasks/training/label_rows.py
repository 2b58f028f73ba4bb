"""Convert labelled pairs to token ids for reward modelling: whole conversations, as scorers read.

A reward model scores a conversation with its answer by its own chat template (`pvar/chat.py`), so
it is trained on the same ids. A conversation that is too long, or that the template refuses, leaves
out its pair, as it would get no reward.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pvar.chat import conversation_token_ids
from pvar.digest import digest
from pvar.errors import ChatTemplateError
from pvar.records import Pair
from tasks.engine.tables import RejectedRow, TokenPair
from tasks.training.token_rows import EncodedPairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_labelled_pairs(
    pairs: Sequence[Pair], tokenizer: "PreTrainedTokenizerBase", max_length_tokens: int
) -> EncodedPairs:
    """Token ids of both conversations of each pair; the prompt is part of them, not apart.

    Raises ModelError if the tokenizer has no usable chat template.
    """
    encoded, rejected = [], []
    for pair in pairs:
        try:
            chosen, dispreferred = (
                conversation_token_ids(tokenizer, pair.messages, answer)
                for answer in (pair.chosen, pair.rejected)
            )
        except ChatTemplateError as error:
            rejected.append(RejectedRow(pair.prompt_id, "template_refused", str(error)))
            continue
        length = max(len(chosen), len(dispreferred))
        if length > max_length_tokens:
            rejected.append(RejectedRow(pair.prompt_id, "too_long", f"{length} tokens"))
        else:
            pair_id = digest([pair.prompt_id, pair.chosen, pair.rejected])
            encoded.append(TokenPair(pair_id, pair.prompt_id, [], chosen, dispreferred))
    return EncodedPairs(encoded, rejected)
