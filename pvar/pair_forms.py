"""Pairs in the forms that other trainers read.

`prompt` with lists of messages is TRL's conversational preference form, which OpenRLHF reads as
well; `messages` with one message each is that of Axolotl and LLaMA-Factory. `plain` has texts. All
forms keep where a pair is from and what pvar knows of it.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pvar.records import Message, Pair

Trainer = Literal["trl", "openrlhf", "axolotl", "llama_factory", "plain"]
"""Whose form."""

DATASET = "pvar_pairs"
"""Name of the data set in LLaMA-Factory's dataset_info.json."""


class PairOrigin(NamedTuple):
    """What is known of a pair's prompt. None is unknown."""

    pvar: float | None
    source: str | None


UNKNOWN = PairOrigin(None, None)


def pair_row(pair: Pair, origin: PairOrigin, trainer: Trainer) -> dict[str, object]:
    """One row of the file that this trainer reads."""
    messages = [_message(each) for each in pair.messages]
    chosen, rejected = (
        _message(Message("assistant", text)) for text in (pair.chosen, pair.rejected)
    )
    row: dict[str, object]
    match trainer:
        case "trl" | "openrlhf":
            row = {"prompt": messages, "chosen": [chosen], "rejected": [rejected]}
        case "axolotl" | "llama_factory":
            row = {"messages": messages, "chosen": chosen, "rejected": rejected}
        case "plain":
            row = {"messages": messages, "chosen": pair.chosen, "rejected": pair.rejected}
    return {
        **row,
        "chosen_reward": pair.chosen_reward,
        "rejected_reward": pair.rejected_reward,
        "pvar": origin.pvar,
        "source": origin.source,
        "prompt_id": pair.prompt_id,
    }


def unreadable_pairs(pairs: Sequence[Pair], trainer: Trainer) -> int:
    """How many of the pairs this trainer would leave out.

    LLaMA-Factory only reads conversations in which user and assistant take turns, after at most
    one system message.
    """
    if trainer != "llama_factory":
        return 0
    return sum(not _takes_turns(pair.messages) for pair in pairs)


def dataset_entry(file_name: str) -> dict[str, object]:
    """The entry of a file in LLaMA-Factory's dataset_info.json."""
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }


def _takes_turns(messages: Sequence[Message]) -> bool:
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    expected = ("user", "assistant")
    return len(turns) % 2 == 1 and all(
        message.role == expected[number % 2] for number, message in enumerate(turns)
    )


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}
