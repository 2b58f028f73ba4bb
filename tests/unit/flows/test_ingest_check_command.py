"""`pvar ingest-check`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.commands.ingest_check import ingest_check
from flows.pinning import pin
from pvar.config import PipelineConfig
from pvar.errors import InputError
from pvar.records import Prompt
from tasks.stages.ingest import PROMPTS
from tests.workflow import Workflow, fake_settings, open_wiring, write_prompts

ROWS = [
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Yes."}]},
    {"instruction": "Who?", "chosen": "You.", "rejected": "They."},
    {"prompt": "What is 3 + 4?", "answer": "7"},
    {"prompt": "When?", "completion": "Now.", "label": True},
    {"text": "Where?"},
    {"instruction": "Why?", "conversations": [{"from": "human", "value": "Why?"}]},
    {"prompt": " why? "},
    {"text": "Where to?"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "{\n")
    return path


def test_every_row_is_kept_or_has_a_reason(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest_check(str(rows), as_json=True, rows=2)
    found = json.loads(capsys.readouterr().out)
    assert (found["num_rows"], found["num_kept"], found["num_rejected"]) == (9, 4, 5)
    counts = ("num_pairs", "num_ability_questions", "num_labels", "num_unused_labels")
    assert [found[name] for name in counts] == [1, 1, 0, 1]
    assert found["forms"] == {
        "sharegpt": 1, "llama_factory": 1, "trl": 5, "alpaca or sharegpt": 1
    }  # fmt: skip
    rejected = {
        rule: (each["num_rows"], each["first_line"]) for rule, each in found["rejected"].items()
    }
    assert rejected == {
        "no_prompt": (2, 5), "ambiguous_form": (1, 6), "unreadable_line": (1, 9),
        "duplicate": (1, 1),  # as in a run, the prompt with the smaller id stays
    }  # fmt: skip
    assert "its columns are text" in found["rejected"]["no_prompt"]["detail"]
    assert found["rows"][0] == {
        "line": 2,
        "form": "llama_factory",
        "texts": [["user", "Who?"], ["chosen", "You."], ["rejected", "They."]],
    }


def test_the_settings_of_ingest_are_those_of_the_run(
    rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("ingest.columns.prompt=text", "ingest.format=trl", "ingest.join_labels=true")
    ingest_check(str(rows), set_=changes)
    said = capsys.readouterr().out
    assert "kept: 5; with a chosen and a rejected answer: 0" in said
    assert "answers with a label, to be joined to pairs: 1" in said
    assert "  other_form: 3, the first in line 1\n" in said
    assert "line 4 (trl)\n  user: When?\n  good answer: Now.\n" in said


def test_labels_and_duplicates_are_decided_as_in_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A majority, a tie, a question beside a prompt, and prompts that differ in their case."""
    path = write_prompts(tmp_path / "rows.jsonl")

    def pair(prompt: str, *answers: str) -> dict[str, str]:
        return dict(zip(("prompt", "chosen", "rejected"), (prompt, *answers), strict=True))

    rows = [
        pair("Who?", "a", "b"), pair("Who?", "b", "a"), pair("Who?", "b", "a"),
        pair("When?", "a", "b"), pair("When?", "b", "a"),
        {"prompt": "How many?"}, {"prompt": "How many?", "answer": "7"},
        *({"prompt": f"{first} is {number}?"} for number in range(9) for first in ("what", "What")),
    ]  # fmt: skip
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    settings = fake_settings(path, **{"ingest.near_duplicate_similarity": None})
    wiring = open_wiring(tmp_path)
    made = Workflow(pin(PipelineConfig.model_validate(settings), wiring), wiring)
    prompts = made.make("ingest").artifact.rows(PROMPTS, Prompt)
    counts = made.artifact("ingest").manifest.row_counts

    preset = tmp_path / "my.yaml"
    preset.write_text(json.dumps(settings))
    ingest_check(preset=str(preset), rows=100, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert {rule: each["num_rows"] for rule, each in found["rejected"].items()} == counts.rejected
    assert counts.rejected == {"contradictory_label": 1, "duplicate": 1 + 1 + 1 + 9}
    assert (found["num_undecided_labels"], found["num_ability_questions"]) == (2, 1)
    texts = {row["texts"][0][1]: [text for _, text in row["texts"][1:]] for row in found["rows"]}
    assert texts == {
        prompt.messages[0].content: [
            text
            for text in (prompt.chosen, prompt.rejected, *prompt.accepted_answers)
            if text is not None
        ]
        for prompt in prompts
    }


def test_a_file_of_which_no_row_can_be_used_is_an_error(
    rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"none of its 9 rows can be used, .*ingest\.columns"):
        ingest_check(str(rows), set_=("ingest.format=hh",))
    assert "  not_a_transcript: 8, the first in line 1\n" in capsys.readouterr().out


def test_it_needs_no_server_and_no_heavy_library(rows: Path, tmp_path: Path) -> None:
    code = (
        "import atexit, sys; from flows.cli import main; "
        "heavy = {'torch', 'mlflow', 'prefect', 'transformers', 'datasets'}; "
        "atexit.register(lambda: print('heavy:', *heavy & sys.modules.keys())); "
        "main(['ingest-check', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(rows)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "heavy:"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
