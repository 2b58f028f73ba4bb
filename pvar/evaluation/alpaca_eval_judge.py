"""AlpacaEval 2's judge: the order of the two answers, the prompt, and the odds of one token.

The judge answers with one token: "m" for the answer shown first, "M" for the second. With the
log-probabilities of both, the preference is 2 − P(m) / (P(m) + P(M)) on AlpacaEval's scale from 1
(first) to 2 (second). A random number seeded by the instruction decides whether the baseline or the
model is shown first; a preference p from the swapped order becomes 3 − p.

Source: tatsu-lab/alpaca_eval 0.6.6, completion_parsers.py and annotators/pairwise_evaluator.py;
judge gpt-4-1106-preview, one token, temperature 1, five top log-probabilities. Its prompt is not
included: pass the text of its file (ChatML with {instruction}, {output_1}, {output_2}) for results
comparable with the leaderboard. The default prompt asks for the same two tokens.

Some servers give no log-probabilities. Then the reply's text decides, with preference 1 or 2: the
text form, which the original does not have. A judge that is torn 60 to 40 says so in the token form
only, so the evidence of a verdict names its form.
"""

import json
import math
import random
import re
from collections.abc import Iterable, Mapping
from typing import Literal

from pvar.errors import ConfigError
from pvar.records import Message

FIRST_TOKEN, SECOND_TOKEN = "m", "M"

DEFAULT_TEMPLATE = """<|im_start|>system
You compare the answers of two language models and say which one people would like better.
<|im_end|>
<|im_start|>user
Here is an instruction and the answers of two models, named m and M.

## Instruction

{instruction}

## Answer of model m

{output_1}

## Answer of model M

{output_2}

## Task

Which answer would people like better? Reply with the model's name alone: m or M.
<|im_end|>
"""

_BLOCK = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)\n?<\|im_end\|>", re.DOTALL)
_AROUND_A_NAME = re.compile(r"[\s\"'`´‘’“”«»*_.()\[\]]")
_FIELD = re.compile(r"\{(instruction|output_1|output_2)\}")


def is_swapped(instruction: str, *, seed: int = 0) -> bool:
    """Whether the model's answer is shown first. Seed 0 gives the leaderboard's own order."""
    coin = random.Random(f"is_switched_outputs{instruction}{seed}")  # noqa: S311 - its definition
    return coin.choices([False, True])[0]


def preference_from_logprobs(token_logprobs: Mapping[str, float], *, swapped: bool) -> float | None:
    """Preference in [1, 2] for the model over the baseline; None if both tokens are missing.

    A token outside the judge's top five has probability 0, as in the original.
    """
    first = token_logprobs.get(FIRST_TOKEN, -math.inf)
    second = token_logprobs.get(SECOND_TOKEN, -math.inf)
    if max(first, second) == -math.inf:
        return None
    largest = max(first, second)
    odds_first, odds_second = math.exp(first - largest), math.exp(second - largest)
    shown = 2 - odds_first / (odds_first + odds_second)
    return 3 - shown if swapped else shown


def preference_from_text(text: str) -> float | None:
    """1 if the whole text is "m", 2 if it is "M", else None. Quotes, markdown and dots are ignored.

    The preference is for the answer that is shown second.
    """
    name = _AROUND_A_NAME.sub("", text)
    return {FIRST_TOKEN: 1.0, SECOND_TOKEN: 2.0}.get(name)


JudgeForm = Literal["tokens", "text", "mixed"]
"""How verdicts were read: from the odds of two tokens, or from the text."""


def token_evidence(token_logprobs: Mapping[str, float]) -> str:
    """The evidence of a verdict in the token form: the log-probabilities."""
    return json.dumps(dict(token_logprobs))


def text_evidence(text: str) -> str:
    """The evidence of a verdict in the text form: the form's name and the text."""
    return json.dumps({"form": "text", "text": text}, ensure_ascii=False)


def form_of(evidence: Iterable[str | None]) -> JudgeForm | None:
    """The form of the verdicts with this evidence; None if none is from this judge."""
    forms = {form for each in evidence if (form := _form(each))}
    return "mixed" if len(forms) > 1 else next(iter(forms), None)


def _form(evidence: str | None) -> JudgeForm | None:
    if evidence is None or not evidence.startswith("{"):
        return None
    try:
        read = json.loads(evidence)
    except ValueError:
        return None
    if read.get("form") == "text":
        return "text"
    return "tokens" if read and set(read) <= {FIRST_TOKEN, SECOND_TOKEN} else None


def judge_messages(
    instruction: str,
    baseline_output: str,
    model_output: str,
    *,
    swapped: bool,
    template: str = DEFAULT_TEMPLATE,
) -> tuple[Message, ...]:
    """The judge's prompt. Raises ConfigError for a template without its blocks or fields."""
    _check(template)
    first, second = (model_output, baseline_output) if swapped else (baseline_output, model_output)
    fields = {"instruction": instruction, "output_1": first, "output_2": second}
    return tuple(
        # One pass: braces inside an answer are text, not fields.
        Message(role, _FIELD.sub(lambda match: fields[match[1]], content))
        for role, content in _BLOCK.findall(template)
    )


def _check(template: str) -> None:
    fields = set(_FIELD.findall(template))
    if missing := {"instruction", "output_1", "output_2"} - fields:
        raise ConfigError(
            f"the judge's template lacks {', '.join(f'{{{name}}}' for name in sorted(missing))}; "
            "add it to evaluate.judge.template"
        )
    if not _BLOCK.search(template):
        raise ConfigError(
            "the judge's template has no ChatML block; write <|im_start|>user, a line break, the "
            "text and <|im_end|>"
        )
