"""Benchmarks that cannot be run: one message that names file and values and says what to do."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.benchmark_table import nodes_of_models, with_models
from flows.pinning import pin
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, InputError, PvarError
from tasks.benchmark_nodes import score_name
from tests.benchmark_files import (
    CATEGORIES,
    MODEL,
    alpaca_eval_files,
    arena_answer,
    arena_hard_files,
    arena_outputs,
    outputs,
    write,
)
from tests.workflow import fake_settings, open_wiring, start_workflow, write_prompts

Change = Mapping[str, Any]

FAKE: Change = {"judge": {"kind": "fake"}}


def run(home: Path, benchmark: Change, model: Change | None = None) -> None:
    """All nodes of a further model, whose answers are a file's."""
    flow = start_workflow(home, benchmarks=[benchmark], benchmark_models=[model] if model else [])
    name = str(benchmark.get("name", benchmark["kind"]))
    flow.make(f"questions-{name}")
    if model is not None:
        flow.make(f"answers-{name}-{MODEL}", f"judge-{name}-{MODEL}", score_name(name, MODEL))


def instructions(home: Path, *names: str) -> str:
    return write(home / "questions.jsonl", [{"instruction": name} for name in names])


def answered(home: Path, *names: str, **more: Any) -> str:
    rows = [{"instruction": name, "output": "x", "generator": "gpt4", **more} for name in names]
    return write(home / "gpt4.jsonl", rows)


def arena_questions(home: Path, *rows: Change) -> str:
    return write(home / "questions.jsonl", rows)


CASES: Mapping[str, tuple[Callable[[Path], Change], str]] = {
    "a missing file of questions": (
        lambda home: alpaca_eval_files(home) | {"questions": str(home / "eval.json")},
        r"/eval\.json: no such file; check the path",
    ),
    "a file of another type": (
        lambda home: alpaca_eval_files(home)
        | {"questions": str(write_prompts(home / "eval.txt"))},
        r"/eval\.txt: unknown file type",
    ),
    "AlpacaEval's questions are Arena-Hard's": (
        lambda home: alpaca_eval_files(home)
        | {"questions": arena_hard_files(home)["questions"]},
        r"/question\.jsonl: there is no column instruction; the columns are uid, category, prompt; "
        "give a file that has it$",
    ),
    "Arena-Hard's questions are AlpacaEval's": (
        lambda home: arena_hard_files(home)
        | {"questions": alpaca_eval_files(home)["questions"]},
        r"/eval\.jsonl, row 1: there is no column question_id or uid; the columns are "
        "instruction, dataset; give a file that has one of them$",
    ),
    "questions of v2.0 for v0.1": (
        lambda home: arena_hard_files(home, version="v0.1", **FAKE),
        r"/question\.jsonl: category 'creative_writing' does not belong to Arena-Hard v0\.1, which "
        r"has arena-hard-v0\.1; set the benchmark's version, or give its question file$",
    ),
    "a judge of another version": (
        lambda home: arena_hard_files(home, version="v0.1"),
        r"benchmark arena_hard is of version v0\.1, but its judge reads verdicts by the rules of "
        r"v2\.0; set the judge's version to v0\.1",
    ),
    "duplicate instructions": (
        lambda home: alpaca_eval_files(home) | {"questions": instructions(home, "a", "b", "a")},
        r"/questions\.jsonl, row 3: the instruction 'a' occurs a second time; keep one row per",
    ),
    "duplicate questions": (
        lambda home: arena_hard_files(home)
        | {"questions": arena_questions(home, *[{"uid": "a", "prompt": "x"}] * 2)},
        r"/questions\.jsonl, row 2: question a occurs a second time; keep one row per question$",
    ),
    "a baseline that lacks instructions": (
        lambda home: alpaca_eval_files(home)
        | {"questions": instructions(home, "a", "b"), "baseline_outputs": answered(home, "a")},
        r"/gpt4\.jsonl: there is no baseline's answer to 1 of 2 questions of .*/questions\.jsonl, "
        "such as 'b'; give files of the same version$",
    ),
    "a baseline that lacks questions": (
        lambda home: arena_hard_files(home, {"h1": "x", "c1": "x"}),
        r"/baseline-creative_writing\.jsonl, .*/baseline-hard_prompt\.jsonl: there is no "
        r"baseline's answer to 1 of 3 questions of .*/question\.jsonl, such as 'Do h2'; give files",
    ),
    "a baseline without the name of its model": (
        lambda home: alpaca_eval_files(home)
        | {"questions": instructions(home, "a"),
           "baseline_outputs": answered(home, "a", generator=None)},
        r"/gpt4\.jsonl: there is no column generator, the name of the baseline model; add it$",
    ),
    "two baselines for a question": (
        lambda home: arena_hard_files(home)
        | {"baseline_answers": [
            write(home / f"{name}.jsonl", [arena_answer(q, name, "x") for q in CATEGORIES])
            for name in ("one", "two")
        ]},
        r"/two\.jsonl: question c1 is also answered by the baseline one; give one baseline per",
    ),
    "an unknown category": (
        lambda home: arena_hard_files(home, categories=["hard_promt"]),
        r"/question\.jsonl: there is no category 'hard_promt'; it has creative_writing, hard_promp",
    ),
    "a broken line": (
        lambda home: alpaca_eval_files(home) | {"questions": broken(home)},
        r"/questions\.jsonl, line 2: .*; fix or remove it$",
    ),
    "a calibration of one table": (
        lambda home: alpaca_eval_files(home, calibration=str(calibration(home, "df_gamed"))),
        r"/calibration/instruction_difficulty\.csv: no such file; check the path",
    ),
}  # fmt: skip


def broken(home: Path) -> str:
    path = Path(instructions(home, "a"))
    path.write_text(path.read_text() + "{broken\n")
    return str(path)


def calibration(home: Path, *tables: str) -> Path:
    folder = home / "calibration"
    folder.mkdir()
    for table in tables:
        (folder / f"{table}.csv").write_text("index\n")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_files_that_cannot_be_a_benchmark(tmp_path: Path, case: str) -> None:
    benchmark, message = CASES[case]
    with pytest.raises((PvarError, ValidationError)) as refused:
        run(tmp_path, benchmark(tmp_path))
    said = refused.value
    text = str(said.errors()[0]["msg"]) if isinstance(said, ValidationError) else str(said)
    assert_matches(text, message)


def assert_matches(text: str, message: str) -> None:
    import re

    assert re.search(message, text), text
    assert "\n" not in text


OUTPUTS: Mapping[str, tuple[Callable[[Path], tuple[Change, Change]], str]] = {
    "answers of two models": (
        lambda home: (
            alpaca_eval_files(home, **FAKE),
            {"name": MODEL, "outputs": write(home / "outputs.jsonl", [
                {"instruction": "q1", "output": "x", "generator": "one"},
                {"instruction": "q2", "output": "x", "generator": "two"},
            ])},
        ),
        r"/outputs\.jsonl: there are answers of 2 models \(column generator: one, two\); a file "
        "must have the answers of one model$",
    ),
    "two answers to a question": (
        lambda home: (
            arena_hard_files(home, **FAKE),
            {"name": MODEL, "outputs": write(home / "answers.jsonl", [
                arena_answer("h1", "tiny", "x"), arena_answer("h1", "tiny", "y"),
            ])},
        ),
        r"/answers\.jsonl, row 2: a second answer to question h1; keep one answer per question$",
    ),
    "answers to other questions": (
        lambda home: (alpaca_eval_files(home, **FAKE), outputs(home, {"what?": "x"})),
        r"/outputs\.jsonl has 1 answers, but none to any of 5 questions; give answers to the same "
        "benchmark and version$",
    ),
    "answers to Arena-Hard for AlpacaEval": (
        lambda home: (alpaca_eval_files(home, **FAKE), arena_outputs(home, {"h1": "x"})),
        r"/answers\.jsonl: there is no column instruction, output; the columns are uid, model, "
        r"messages; .*; if they are answers to another benchmark than alpaca_eval, choose it with "
        r"--benchmark NAME \(benchmark_models\.benchmarks\)$",
    ),
    "answers to AlpacaEval for Arena-Hard": (
        lambda home: (arena_hard_files(home, **FAKE), outputs(home, {"q1": "x"})),
        r"/outputs\.jsonl, row 1: there is no column question_id or uid; the columns are "
        r"instruction, output, generator; .*if they are answers to another benchmark than "
        r"arena_hard, choose it with --benchmark NAME \(benchmark_models\.benchmarks\)$",
    ),
    "a file of questions": (
        lambda home: (
            alpaca_eval_files(home, **FAKE),
            {"name": MODEL, "outputs": alpaca_eval_files(home)["questions"]},
        ),
        r"/eval\.jsonl: there is no column output; the columns are instruction, dataset; give a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OUTPUTS)
def test_answers_from_a_file_that_do_not_fit(tmp_path: Path, case: str) -> None:
    files, message = OUTPUTS[case]
    benchmark, model = files(tmp_path)
    with pytest.raises(InputError) as refused:
        run(tmp_path, benchmark, model)
    assert_matches(str(refused.value), message)


def config(home: Path, **changes: Any) -> PipelineConfig:
    home.mkdir(exist_ok=True)
    source = write_prompts(home / "prompts.jsonl")
    return PipelineConfig.model_validate(fake_settings(source, **changes))


LM_EVAL: Change = {"kind": "lm_eval", "tasks": ["a"], "backend": "fake"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"benchmarks": [LM_EVAL, LM_EVAL]},
            "benchmarks: the name 'lm_eval' occurs twice .*; give each a unique `name`",
        ),
        (
            {"benchmark_models": [{"name": "opponent", "model": "a/b"}]},
            r"benchmark_models: the name 'opponent' occurs twice \(challenger and opponent are the "
            r"run's own models\); give each a unique `name`",
        ),
        (
            {
                "benchmarks": [LM_EVAL | {"name": "a"}, LM_EVAL | {"name": "a-b"}],
                "benchmark_models": [
                    {"name": "b-c", "model": "x/y"},
                    {"name": "c", "model": "x/y"},
                ],
            },
            "benchmark a-b of model c and benchmark a of model b-c would both be named a-b-c; give "
            "one of them another `name`",
        ),
        (
            {
                "benchmarks": [LM_EVAL | {"name": "a"}, LM_EVAL | {"name": "a-b"}],
                "benchmark_models": [{"name": "b", "model": "x/y"}],
            },
            "benchmark a of model b and benchmark a-b would both be named a-b; give one",
        ),
        (
            {"benchmarks": [LM_EVAL], "promote.benchmarks": [{"name": "mmlu", "max_loss": 1}]},
            "promote.benchmarks: there is no benchmark 'mmlu'; benchmarks has lm_eval",
        ),
        (
            {"promote.benchmarks": [{"name": "mmlu", "max_loss": 1}]},
            "promote.benchmarks: there is no benchmark 'mmlu'; benchmarks has none",
        ),
        (
            {"benchmarks": [LM_EVAL], "promote.benchmarks": [{"name": "lm_eval"}]},
            "promote.benchmarks: lm_eval needs either min_difference_lower or max_loss",
        ),
        (
            {
                "benchmarks": [LM_EVAL],
                "benchmark_models": [{"name": "m", "model": "a/b", "benchmarks": ["mmlu"]}],
            },
            "benchmark_models: there is no benchmark 'mmlu'; benchmarks has lm_eval",
        ),
        (
            {"benchmarks": [LM_EVAL], "benchmark_models": [{"name": "m"}]},
            "benchmark model m: give either a model or a file of outputs",
        ),
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, changes: Change, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        config(tmp_path, **changes)
    (error,) = refused.value.errors()
    assert_matches(error["msg"], message)


# --- pvar benchmark ---


def test_without_benchmarks_there_is_nothing_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no benchmarks; add some under `benchmarks`"):
        with_models(config(tmp_path), [], [])


def test_an_unknown_benchmark_names_those_that_there_are(tmp_path: Path) -> None:
    benchmarks = [LM_EVAL, alpaca_eval_files(tmp_path)]
    with pytest.raises(ConfigError, match=r"no benchmark 'mmlu'; the .* has lm_eval, alpaca_eval$"):
        with_models(config(tmp_path, benchmarks=benchmarks), [], ["mmlu"])


def test_models_of_one_name_are_two_and_a_model_that_is_given_twice_is_refused(
    tmp_path: Path,
) -> None:
    settings = config(tmp_path, benchmarks=[LM_EVAL])
    found = with_models(settings, ["a/name", "champion", "b/name"], [])
    assert [model.name for model in found.benchmark_models] == ["name-1", "champion", "name-3"]
    with pytest.raises(ConfigError, match="model 'a/name' is given twice; give each model once"):
        with_models(settings, ["a/name", "champion", "a/name"], [])


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("HuggingFaceTB/SmolLM2-135M@main", "SmolLM2-135M-1"),
        ("models:/pvar@champion", "pvar-1"),
        ("s3://bucket/models/mine/", "mine-1"),
        ("./a folder", "a-folder-1"),
        ("outputs:/data/alpaca-7b.jsonl.gz", "alpaca-7b-1"),
        ("outputs:C.json", "C-1"),
        ("outputs:é.json", "model-1"),
    ],
)
def test_a_model_is_named_after_the_last_part_of_its_reference(
    tmp_path: Path, reference: str, name: str
) -> None:
    found = with_models(config(tmp_path, benchmarks=[LM_EVAL]), [reference], [])
    (model,) = found.benchmark_models
    assert model.name == name
    assert (model.outputs or f"{model.model}") == reference.removeprefix("outputs:")


def test_only_the_chosen_benchmarks_are_run_and_the_gate_is_left_out(tmp_path: Path) -> None:
    settings = config(
        tmp_path,
        **{
            "benchmarks": [LM_EVAL, alpaca_eval_files(tmp_path)],
            "benchmark_models": [
                {"name": "m", "model": "a/b", "benchmarks": ["lm_eval"]},
                {"name": "n", "model": "a/b"},
            ],
            "promote.benchmarks": [{"name": "lm_eval", "max_loss": 1}],
        },
    )
    chosen = with_models(settings, [], ["alpaca_eval"])
    assert [each.name for each in chosen.benchmarks] == ["alpaca_eval"]
    assert [each.name for each in chosen.benchmark_models] == ["n"]
    assert chosen.promote.benchmarks == ()


def test_answers_from_a_file_take_no_benchmark_without_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"instruction": "a", "output": "b"}])
    settings = with_models(config(tmp_path, benchmarks=[LM_EVAL]), [f"outputs:{path}"], [])
    with pytest.raises(ConfigError, match=r"no model takes any of the benchmarks \(lm_eval\)"):
        nodes_of_models(pin(settings, open_wiring(tmp_path)))
