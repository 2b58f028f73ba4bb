"""Stage ingest: a bad row costs itself only, and nothing that is evaluated on is trained on."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flows.pinning import pin
from pvar.config import PipelineConfig
from pvar.errors import InputError
from pvar.records import Prompt
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.tables import RejectedRow
from tasks.stages.ingest import PROMPTS, REJECTED
from tests.workflow import TOPICS, Workflow, fake_settings, open_wiring, write_prompts


def ingest(home: Path, source: Path, **changes: Any) -> Artifact:
    wiring = open_wiring(home)
    settings = {f"ingest.{key}": value for key, value in changes.items()}
    config = PipelineConfig.model_validate(fake_settings(source, **settings))
    return Workflow(pin(config, wiring), wiring).make("ingest").artifact


def splits(artifact: Artifact) -> dict[str, str]:
    """Text of each prompt → its side."""
    return {each.messages[0].content: each.split for each in artifact.rows(PROMPTS, Prompt)}


def texts(artifact: Artifact, split: str) -> list[str]:
    return sorted(text for text, side in splits(artifact).items() if side == split)


def write_benchmark(path: Path, instructions: Iterable[str]) -> Path:
    path.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in instructions))
    return path


def test_a_bad_row_is_rejected_with_its_reason_and_costs_no_other(tmp_path: Path) -> None:
    good = [json.dumps({"prompt": f"Describe {text}."}).encode() for text in TOPICS[:10]]
    bad = [
        b'{"prompt": "broken o',
        b'{"prompt": "\xff"}',
        b'{"text": "no such field is known"}',
        b'{"prompt": " \\n"}',
        b'{"prompt": 7}',
        b'{"prompt": "a?", "chosen": "b"}',
        good[3].replace(b"Describe", b"DESCRIBE"),
    ]
    source = tmp_path / "prompts.jsonl"
    source.write_bytes(b"\n".join([*good[:4], *bad, *good[4:]]) + b"\n")
    artifact = ingest(tmp_path, source)

    kept = {text.capitalize() for text in splits(artifact)}
    assert kept == {f"Describe {text}.".capitalize() for text in TOPICS[:10]}
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=17,
        rows_out=10,
        rejected={
            "unreadable_line": 2,
            "no_prompt": 1,
            "empty_prompt": 1,
            "prompt_not_text_or_messages": 1,
            "chosen_without_rejected": 1,
            "duplicate": 1,
        },
    )
    rules = {row.row_id: row.rule for row in artifact.rows(REJECTED, RejectedRow)}
    assert rules["line 5"] == rules["line 6"] == "unreadable_line"
    assert rules["line 10"] == "chosen_without_rejected"


def test_a_field_of_the_rows_names_the_source_and_changes_nothing_else(tmp_path: Path) -> None:
    rows = [{"prompt": f"Describe {text}.", "dataset": "web"} for text in TOPICS[:20]]
    rows[3]["dataset"] = " "
    rows[4] |= {"dataset": 7}
    del rows[5]["dataset"]
    source = tmp_path / "prompts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = ingest(tmp_path, source, source_field="dataset").rows(PROMPTS, Prompt)
    plain = ingest(tmp_path, source).rows(PROMPTS, Prompt)
    assert [each._replace(source="") for each in named] == [
        each._replace(source="") for each in plain
    ]
    of_file = {each.messages[0].content for each in named if each.source == "prompts.jsonl"}
    assert of_file == {f"Describe {TOPICS[row]}." for row in (3, 4, 5)}
    assert {each.source for each in named} == {"web", "prompts.jsonl"}
    assert {each.source for each in plain} == {"prompts.jsonl"}


def test_the_side_of_a_prompt_does_not_depend_on_the_rest_of_the_file(tmp_path: Path) -> None:
    whole = splits(ingest(tmp_path, write_prompts(tmp_path / "whole.jsonl")))
    part = splits(ingest(tmp_path, write_prompts(tmp_path / "part.jsonl", TOPICS[20:5:-1])))
    assert len(part) == 15
    assert part.items() <= whole.items()


def write_rows(path: Path, rows: Iterable[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_unpaired_labels_are_paired_or_rejected_by_name(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Describe {text}.", "completion": answer, "label": label}
        for text in TOPICS[:10]
        for answer, label in (("A fine thing.", True), ("No.", False))
    ]
    lonely = [
        {"prompt": f"Why {text}?", "completion": "No.", "label": False} for text in TOPICS[:4]
    ]
    source = write_rows(tmp_path / "labels.jsonl", [*rows, *lonely])
    artifact = ingest(tmp_path, source, join_labels=True)
    kept = artifact.rows(PROMPTS, Prompt)
    assert "num_unused_labels" not in artifact.manifest.summary
    assert {(each.chosen, each.rejected) for each in kept} == {("A fine thing.", "No.")}
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=24, rows_out=10, rejected={"joined_in_pair": 10, "unpaired_label": 4}
    )
    assert artifact.manifest.summary["num_annotated"] == 10
    rules = {row.row_id: row.rule for row in artifact.rows(REJECTED, RejectedRow)}
    assert rules["line 2"] == "joined_in_pair"
    assert rules["line 24"] == "unpaired_label"


def test_without_labels_wanted_their_rows_are_prompts_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As before labels could be joined, under the same digest."""
    rows: list[dict[str, object]] = [
        {"prompt": f"Describe {text}.", "completion": "Fine.", "label": number % 2 == 0}
        for number, text in enumerate(TOPICS[:12])
    ]
    rows.append({"prompt": "Why?", "completion": "No.", "label": "bad"})
    rows.append({"prompt": "How?", "completion": "No."})
    artifact = ingest(tmp_path, write_rows(tmp_path / "labels.jsonl", rows))
    assert artifact.manifest.row_counts == RowCounts(rows_in=14, rows_out=14)
    assert {each.chosen for each in artifact.rows(PROMPTS, Prompt)} == {None}
    assert artifact.manifest.summary["num_annotated"] == 0
    assert artifact.manifest.summary["num_unused_labels"] == 13
    assert "labels.jsonl: 13 rows have completion and label" in caplog.text
    assert "ingest.join_labels=true" in caplog.text


def test_questions_are_held_out_whatever_their_ids_and_keep_their_answers(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"Describe {text}."} for text in TOPICS]
    before = ingest(tmp_path, write_rows(tmp_path / "plain.jsonl", rows))
    # Half of the prompts, from both sides, become questions; one row's answer is of a wrong type.
    questions = [{**row, "answer": ["slow", "train"]} for row in rows[::2]]
    bad: dict[str, object] = {"prompt": "How many slugs?", "answer": 7}
    source = write_rows(tmp_path / "mixed.jsonl", [*rows[1::2], *questions, bad])
    artifact = ingest(tmp_path, source)

    kept = {each.messages[0].content: each for each in artifact.rows(PROMPTS, Prompt)}
    asked = {str(row["prompt"]) for row in questions}
    assert not asked.isdisjoint(texts(before, "train"))
    assert {text for text, each in kept.items() if each.is_question} == asked
    assert all(kept[text].split == "eval" for text in asked)
    assert all(kept[text].accepted_answers == ("slow", "train") for text in asked)
    others = splits(before).items() - {
        (text, side) for text, side in splits(before).items() if text in asked
    }
    assert {(text, each.split) for text, each in kept.items() if text not in asked} == others
    assert artifact.manifest.row_counts.rejected == {"accepted_answer_not_text": 1}
    assert artifact.manifest.summary["num_ability_questions"] == 16
    assert artifact.manifest.summary["num_eval_prompts"] == sum(
        side == "eval" for _, side in others
    )


def test_of_a_prompt_and_the_same_question_the_question_stays(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"Describe {text}."} for text in TOPICS]
    questions = [{**row, "answer": "rain"} for row in rows[:8]]
    for order in ([*rows, *questions], [*questions, *rows]):
        artifact = ingest(tmp_path, write_rows(tmp_path / "twice.jsonl", order))
        kept = artifact.rows(PROMPTS, Prompt)
        assert len(kept) == len(TOPICS)
        assert sum(each.is_question for each in kept) == 8
        assert artifact.manifest.row_counts.rejected == {"duplicate": 8}


def test_questions_whose_answers_are_worked_solutions_are_rejected_by_name(tmp_path: Path) -> None:
    """No answer matches one, so that 0 % would become 0 %, whatever the model has lost."""
    rows: list[dict[str, object]] = [{"prompt": f"Describe {text}."} for text in TOPICS]
    worked = "There are 3 and 4, so 3+4 = <<3+4=7>>7.\n#### 7"
    rows += [{"prompt": f"How many are {n} and 4?", "answer": worked} for n in range(3)]
    rows.append({"prompt": "How many are 3 and 4?", "answer": "7"})
    artifact = ingest(tmp_path, write_rows(tmp_path / "worked.jsonl", rows))
    rejected = {"accepted_answer_is_worked_solution": 3}
    assert artifact.manifest.row_counts.rejected == rejected
    assert artifact.manifest.summary["num_ability_questions"] == 1


def test_questions_alone_leave_nothing_to_judge(tmp_path: Path) -> None:
    rows = [{"prompt": f"Describe {text}.", "answer": "rain"} for text in TOPICS]
    with pytest.raises(InputError, match=r"0 for evaluation, of 32 rows with 32 ability questions"):
        ingest(tmp_path, write_rows(tmp_path / "questions.jsonl", rows))


def test_no_training_prompt_is_a_held_out_one_in_other_letters(tmp_path: Path) -> None:
    # In capitals a prompt has another id, and so perhaps the other side: then its copy must go.
    copies = [text.upper() for text in TOPICS]
    source = write_prompts(tmp_path / "prompts.jsonl", [*TOPICS, *copies])
    artifact = ingest(tmp_path, source)
    train, held_out = (
        {text.casefold() for text in texts(artifact, split)} for split in ("train", "eval")
    )
    assert train.isdisjoint(held_out)
    assert len(train | held_out) == len(TOPICS)
    assert artifact.manifest.row_counts.rejected == {"duplicate": len(TOPICS)}


def test_prompts_of_a_benchmark_are_not_trained_on_but_may_be_evaluated_on(tmp_path: Path) -> None:
    source = write_prompts(tmp_path / "prompts.jsonl")
    before = ingest(tmp_path, source)
    known = [*texts(before, "train")[:2], texts(before, "eval")[0]]
    benchmark = write_benchmark(tmp_path / "benchmark.jsonl", [text.upper() for text in known])
    after = ingest(tmp_path, source, decontaminate_against=[str(benchmark)])

    assert texts(after, "train") == texts(before, "train")[2:]
    assert texts(after, "eval") == texts(before, "eval")
    assert after.manifest.row_counts.rejected == {"contaminated": 2}
    details = [row.detail for row in after.rows(REJECTED, RejectedRow)]
    assert sorted(detail.partition(" ")[0] for detail in details) == [
        "benchmark.jsonl:1:",
        "benchmark.jsonl:2:",
    ]


def test_a_benchmark_that_cannot_be_read_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    source = write_prompts(tmp_path / "prompts.jsonl")
    benchmark = tmp_path / "benchmark.jsonl"
    for row, message in (
        ('{"question": "?"}', r"row 1 has no text `instruction` or `prompt`"),
        ('{"instruction": ', r"line 1 is invalid"),
    ):
        benchmark.write_text(row + "\n")
        with pytest.raises(InputError, match=message):
            ingest(tmp_path, source, decontaminate_against=[str(benchmark)])


def test_a_file_without_a_prompt_says_what_its_rows_are(tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    source.write_text('{"text": "a"}\n{"text": "b"}\nnot JSON\n')
    wanted = (
        r"none of its 3 rows is a prompt \(2 no_prompt, 1 unreadable_line; "
        r"the first is line 1: \{'text': 'a'\}\)"
    )
    with pytest.raises(InputError, match=wanted):
        ingest(tmp_path, source)


def test_labels_that_contradict_each_other_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "Seven."}
    opposite = pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}
    source = write_prompts(tmp_path / "prompts.jsonl")
    with source.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in (pair, opposite))
    artifact = ingest(tmp_path, source)
    rows = artifact.rows(PROMPTS, Prompt)
    (kept,) = (each for each in rows if each.messages[0].content == pair["prompt"])
    assert (kept.chosen, kept.rejected) == (None, None)
    assert artifact.manifest.summary["num_unused_labels"] == 2
    assert "2 labels are not used, because as many rows prefer the other answer" in caplog.text


def test_of_labels_that_contradict_each_other_the_majority_counts(tmp_path: Path) -> None:
    pair = {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "Seven."}
    opposite = pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}
    source = write_prompts(tmp_path / "prompts.jsonl")
    with source.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in (opposite, pair, pair))
    artifact = ingest(tmp_path, source)
    assert artifact.manifest.row_counts.rejected["contradictory_label"] == 1
    rows = artifact.rows(PROMPTS, Prompt)
    (kept,) = (each for each in rows if each.messages[0].content == pair["prompt"])
    assert (kept.chosen, kept.rejected) == ("Blue.", "Seven.")


def test_a_null_instruction_of_a_benchmark_does_not_hide_its_prompt(tmp_path: Path) -> None:
    source = write_prompts(tmp_path / "prompts.jsonl")
    known = texts(ingest(tmp_path, source), "train")[0]
    benchmark = tmp_path / "benchmark.jsonl"
    benchmark.write_text(json.dumps({"instruction": None, "prompt": known}) + "\n")
    artifact = ingest(tmp_path, source, decontaminate_against=[str(benchmark)])
    assert known not in splits(artifact)


def test_a_csv_file_with_columns_of_its_own_is_read(tmp_path: Path) -> None:
    source = tmp_path / "pairs.csv"
    lines = [f"Describe {text}.,Good.,Bad." for text in TOPICS[:10]]
    source.write_text("\n".join(["question,better,worse", *lines]))
    columns = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    artifact = ingest(tmp_path, source, columns=columns)
    prompts = artifact.rows(PROMPTS, Prompt)
    assert {each.messages[0].content for each in prompts} == {
        f"Describe {text}." for text in TOPICS[:10]
    }
    assert {(each.chosen, each.rejected) for each in prompts} == {("Good.", "Bad.")}
    with pytest.raises(InputError, match=r"no row has the column 'quest'"):
        ingest(tmp_path, source, columns={"prompt": "quest"})


def test_rows_of_other_forms_are_kept_and_two_forms_are_named(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"conversations": [{"from": "human", "value": f"Describe {text}."}]} for text in TOPICS[:10]
    ]
    rows.append({"conversations": [], "instruction": "Why?"})
    artifact = ingest(tmp_path, write_rows(tmp_path / "rows.jsonl", rows))
    assert artifact.manifest.row_counts.rejected == {"ambiguous_form": 1}
    assert len(splits(artifact)) == 10
    (rejected,) = artifact.rows(REJECTED, RejectedRow)
    assert rejected.row_id == "line 11"
    assert rejected.detail.startswith("alpaca or sharegpt? Set ingest.format")
