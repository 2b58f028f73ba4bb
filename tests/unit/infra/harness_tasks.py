"""Small tasks for lm-evaluation-harness, as a folder of a user's: nothing is fetched."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHOICE = """
task: toy_choice
dataset_path: json
dataset_kwargs:
  data_files: {test: data/choice.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""

EXACT = """
task: toy_exact
dataset_path: json
dataset_kwargs:
  data_files: {test: data/exact.jsonl}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["<end>"], max_gen_toks: 6, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
metadata: {version: 2.0}
"""

CHOICES: Sequence[Mapping[str, Any]] = (
    {"question": "2 + 2 =", "choices": ["3", "4"], "answer": 1},
    {"question": "The sky is", "choices": ["green", "blue", "a kind of fish"], "answer": 1},
    {"question": "Snow is", "choices": ["white", "black as the night"], "answer": 0},
    {"question": "Cats say", "choices": ["woof", "meow", "moo", "quack quack"], "answer": 1},
    {"question": "3 - 1 =", "choices": ["2", "seven"], "answer": 0},
)

ANSWERS: Sequence[Mapping[str, Any]] = (
    {"question": "5 + 5 =", "answer": "10"},
    {"question": "The capital of France is", "answer": "Paris"},
)


def write_tasks(
    folder: Path,
    *,
    choices: Sequence[Mapping[str, Any]] = CHOICES,
    answers: Sequence[Mapping[str, Any]] = ANSWERS,
    **more: str,
) -> Path:
    """The folder with the tasks toy_choice and toy_exact, and `more` task files by name."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, text in {"choice": CHOICE, "exact": EXACT, **more}.items():
        (folder / f"{name}.yaml").write_text(text)
    for name, rows in {"choice": choices, "exact": answers}.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{name}.jsonl").write_text(lines)
    return folder
