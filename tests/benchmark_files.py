"""Small files of AlpacaEval and Arena-Hard, and a judge on a local server for their answers.

The judge reads what each answer asks for: "[0.8]" in a model's answer is preferred to the
baseline's with probability 0.8 (AlpacaEval), and "[B>A, A>>B]" names the labels of the first and
the second game (Arena-Hard). An answer without any of it gets no verdict.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.services.chat_server import Asked, ChatServer, says, says_token, serving
from tests.services.loopback_http import Sent

MODEL = "model"
"""Name of the further model."""

Answers = Mapping[str, str]
"""Text of a question → the model's answer."""


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


@contextmanager
def served(judge: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with serving(judge) as server:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", server.base_url)
        yield server


# --- AlpacaEval ---

DATA_SETS = {"q1": "koala", "q2": "koala", "q3": "vicuna", "q4": "vicuna", "q5": "vicuna"}
SHOWN = "{instruction}|{output_1}|{output_2}"
TEMPLATE = f"<|im_start|>user\n{SHOWN}\n<|im_end|>"


def alpaca_eval_files(folder: Path, **changes: Any) -> dict[str, Any]:
    """Five questions in two data sets, and a baseline that answers all of them."""
    questions = [{"instruction": q, "dataset": d} for q, d in DATA_SETS.items()]
    baseline = [
        {"instruction": q, "output": f"baseline {q}", "generator": "gpt4"} for q in DATA_SETS
    ]
    return {
        "kind": "alpaca_eval",
        "questions": write(folder / "eval.jsonl", questions),
        "baseline_outputs": write(folder / "baseline.jsonl", baseline),
        "judge": {"kind": "alpaca_eval", "model": "judge-model", "template": TEMPLATE},
        **changes,
    }


def odds(asked: Asked) -> Sent:
    """Of the model's answer, wherever it is shown; none where it asks for none."""
    _, first, second = asked.prompt.split("|")
    ours = second if first.startswith("baseline") else first
    if (wanted := re.search(r"\[([\d.]+)\]", ours)) is None:
        return says("Neither.")
    p = float(wanted[1])
    token, other = ("M", "m") if ours == second else ("m", "M")
    return says_token({token: math.log(p), other: math.log(1 - p)})


def outputs(folder: Path, answers: Answers, generator: str = "tiny") -> dict[str, Any]:
    """The further model, as a file of answers in AlpacaEval's form."""
    rows = [{"instruction": q, "output": a, "generator": generator} for q, a in answers.items()]
    return {"name": MODEL, "outputs": write(folder / "outputs.jsonl", rows)}


# --- Arena-Hard ---

CATEGORIES = {"h1": "hard_prompt", "h2": "hard_prompt", "c1": "creative_writing"}


def arena_hard_files(
    folder: Path, baseline: Mapping[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    """Three questions in two categories, and a baseline for each category."""
    questions = [{"uid": q, "category": c, "prompt": f"Do {q}"} for q, c in CATEGORIES.items()]
    baseline = dict.fromkeys(CATEGORIES, "base") if baseline is None else baseline
    return {
        "kind": "arena_hard",
        "questions": write(folder / "question.jsonl", questions),
        "baseline_answers": [
            write(
                folder / f"baseline-{category}.jsonl",
                [arena_answer(q, "base-model", a) for q, a in baseline.items()
                 if CATEGORIES[q] == category],
            )
            for category in sorted({CATEGORIES[q] for q in baseline})
        ],
        "judge": {"kind": "arena_hard", "model": "judge/model"},
        **changes,
    }  # fmt: skip


def arena_answer(uid: str, model: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "uid": uid,
        "model": model,
        "messages": [
            {"role": "user", "content": f"Do {uid}"},
            {"role": "assistant", "content": {"answer": text}},
        ],
        **more,
    }


def arena_outputs(folder: Path, answers: Answers, name: str = MODEL) -> dict[str, Any]:
    rows = [arena_answer(q, "tiny", a) for q, a in answers.items()]
    return {"name": name, "outputs": write(folder / "answers.jsonl", rows)}


def games(asked: Asked) -> Sent:
    """The label that the model's answer asks for in this game."""
    user = asked.body["messages"][1]["content"]
    first = between(user, "Assistant A's Answer|>\n", "\n<|The End")
    second = between(user, "Assistant B's Answer|>\n", "\n<|The End")
    found = re.search(r"\[(\S*), (\S*)\]", f"{first} {second}")
    assert found is not None
    is_second_game = found[0] in first
    label = found[2 if is_second_game else 1]
    return says(f"I think [[{label}]]" if label else "I cannot say.")


WON = "[B>>A, A>B]"
"""A big win in the first game (weight 3), a win in the second (weight 1)."""
LOST = "[A>B, A=B]"
"""A loss in the first game, a tie in the second."""
