"""Arena-Hard's judge: the prompt of a game, and the parsing of the judge's verdict.

A question has two games: the baseline is assistant A in the first, the model in the second. A
verdict is one of [[A>>B]] [[A>B]] [[A=B]] [[B>A]] [[B>>A]].

    v0.1   every [[…]] of the text, upper case only; all must agree, otherwise there is no verdict.
           A text without any is continued once, and both texts are parsed as one.
    v2.0   upper-cased text; the last [[…]], or if there is none the last […].

Source: lmarena/arena-hard-auto, gen_judgment.py at d99b139 (v0.1) and 196f6b8 (v2.0). A label that
no game can have ("A>>A") is returned as it is, as in the original; scoring drops it. The system
prompt is not included: pass the published one for results comparable with the leaderboard.
"""

import re
from typing import Literal, NamedTuple

from pvar.digest import digest
from pvar.evaluation.style import Version
from pvar.records import Message

Game = Literal[1, 2]

_DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
_SINGLE = re.compile(r"\[([AB<>=]+)\]")

CONTINUE = "Please continue, and end with one of the verdict labels."
"""The second question to a v0.1 judge that gave no label."""

_SYSTEM = """You are an impartial judge of two assistants' answers to a user's prompt.

{own_answer}Compare both answers: find and correct mistakes, and consider whether each is helpful, \
relevant, concise, and where it matters original, and what it leaves out.

Explain your judgment, then end with exactly one label:

[[A>>B]] assistant A is significantly better
[[A>B]] assistant A is slightly better
[[A=B]] a tie
[[B>A]] assistant B is slightly better
[[B>>A]] assistant B is significantly better"""

_OWN_ANSWER = "First write your own answer to the prompt, before you judge the others.\n\n"

_USER = """<|User Prompt|>
{question}

<|The Start of Assistant A's Answer|>
{answer_a}
<|The End of Assistant A's Answer|>

<|The Start of Assistant B's Answer|>
{answer_b}
<|The End of Assistant B's Answer|>"""


class JudgeTemplate(NamedTuple):
    """The system prompt. The user message is fixed."""

    system: str

    @property
    def digest(self) -> str:
        """Identifies the wording in results and cache keys."""
        return digest([self.system, _USER])


OWN_ANSWER_FIRST = JudgeTemplate(_SYSTEM.format(own_answer=_OWN_ANSWER))
"""The default wording."""

WITHOUT_OWN_ANSWER = JudgeTemplate(_SYSTEM.format(own_answer=""))
"""The default wording for v2.0's creative writing."""


def game_messages(
    question: str,
    baseline_answer: str,
    model_answer: str,
    *,
    game: Game,
    template: JudgeTemplate = OWN_ANSWER_FIRST,
) -> tuple[Message, ...]:
    """The judge's prompt in one of the two games."""
    first, second = (
        (baseline_answer, model_answer) if game == 1 else (model_answer, baseline_answer)
    )
    user = _USER.format(question=question, answer_a=first, answer_b=second)
    return Message("system", template.system), Message("user", user)


def parse_verdict(judgment: str, version: Version) -> str | None:
    """The label in a judge's text; None if there is none, or if v0.1's labels contradict."""
    if version == "v0.1":
        labels = set(_DOUBLE.findall(judgment))
        return labels.pop() if len(labels) == 1 else None
    text = judgment.upper()
    labels_in_order = _DOUBLE.findall(text) or _SINGLE.findall(text)
    return labels_in_order[-1] if labels_in_order else None


def wants_continuation(judgment: str) -> bool:
    """Whether v0.1 asks again, because there is no label at all."""
    return not _DOUBLE.search(judgment)
