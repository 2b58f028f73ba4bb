"""lm-evaluation-harness offline: its results as rows, against an oracle that asks the model itself.

The oracle reads one question at a time, without the harness. The tasks are local files.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from infra.lm_eval_harness import LmEvalHarness, open_lm_eval
from infra.pinned_folder import pin_folder
from pvar.benchmark_config import LmEvalSettings
from pvar.errors import ConfigError, InputError
from pvar.lm_eval_records import HarnessResult, LmEvalSample
from pvar.runtime_config import RuntimeConfig
from tests.unit.infra.harness_tasks import CHOICES, EXACT, write_tasks
from tests.unit.infra.tiny_models import save_language_model

pytestmark = pytest.mark.slow  # the harness takes seconds to import

Open = Callable[..., LmEvalHarness]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("policy"), seed=1)


@pytest.fixture
def harness(folder: Path, tmp_path: Path) -> Open:
    """Opens the harness on the tiny model and a folder of tasks."""

    def open_on(tasks: Path, *names: str, allow: bool = False, **changes: object) -> LmEvalHarness:
        settings = {"apply_chat_template": False, "dtype": "float32", **changes}
        return open_lm_eval(
            folder,
            LmEvalSettings.model_validate(
                {"tasks": names, "include_path": pin_folder(str(tasks)), **settings}
            ),
            RuntimeConfig(),
            allow_code_execution=allow,
            scratch=tmp_path / "scratch",
        )

    return open_on


def values(result: HarnessResult, metric: str) -> list[float | None]:
    return [row.value for row in result.samples if row.metric == metric]


def log_likelihood(folder: Path, context: str, continuation: str) -> float:
    """Σ log p(token | everything before it), over the tokens of the continuation."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = tokenizer(context, add_special_tokens=True).input_ids
    after = tokenizer(continuation, add_special_tokens=False).input_ids
    with torch.inference_mode():
        logps = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
    return sum(float(logps[len(before) + row - 1, token]) for row, token in enumerate(after))


def greedy(folder: Path, prompt: str, num_tokens: int) -> str:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    for _ in range(num_tokens):
        with torch.inference_mode():
            best = model(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, best.reshape(1, 1)], dim=1)
    answer = ids[0, -num_tokens:]
    return str(tokenizer.decode(answer, skip_special_tokens=True))


def test_choices_are_made_by_log_likelihood_of_the_model(
    folder: Path, tmp_path: Path, harness: Open
) -> None:
    result = harness(write_tasks(tmp_path / "tasks"), "toy_choice").run("toy_choice")
    plain, by_length = [], []
    for doc in CHOICES:
        scores = [log_likelihood(folder, doc["question"], f" {each}") for each in doc["choices"]]
        per_character = [s / len(each) for s, each in zip(scores, doc["choices"], strict=True)]
        plain.append(float(scores.index(max(scores)) == doc["answer"]))
        by_length.append(float(per_character.index(max(per_character)) == doc["answer"]))
    assert values(result, "acc") == plain
    assert values(result, "acc_norm") == by_length
    assert len({*plain}) == 2  # some right, some wrong
    assert result.num_questions == len(CHOICES)
    assert [row.doc_id for row in result.samples if row.metric == "acc"] == [0, 1, 2, 3, 4]


def test_answers_are_generated_greedily_and_compared(
    folder: Path, tmp_path: Path, harness: Open
) -> None:
    question = "The quick brown fox"
    tasks = write_tasks(
        tmp_path / "tasks",
        answers=[
            {"question": question, "answer": greedy(folder, question, 6)},
            {"question": question, "answer": "something else"},
        ],
    )
    result = harness(tasks, "toy_exact").run("toy_exact")
    assert values(result, "exact_match") == [1.0, 0.0]
    (aggregate,) = result.aggregates
    assert (aggregate.metric, aggregate.filter, aggregate.value) == ("exact_match", "none", 0.5)
    # Standard error of the mean of 1 and 0: √(½ / 1) / √2 = ½.
    assert aggregate.stderr == pytest.approx(0.5)
    assert (aggregate.num_questions, aggregate.task_version) == (2, "2.0")
    assert aggregate.harness_version.startswith("0.4.")


def test_means_over_questions_are_the_aggregates_of_the_harness(
    tmp_path: Path, harness: Open
) -> None:
    opened = harness(write_tasks(tmp_path / "tasks"), "toy_choice", "toy_exact")
    for name in ("toy_choice", "toy_exact"):
        result = opened.run(name)
        for aggregate in result.aggregates:
            own = [value for value in values(result, aggregate.metric) if value is not None]
            assert aggregate.value == pytest.approx(fmean(own), abs=1e-9)


def test_a_question_has_the_same_hash_until_it_or_its_target_changes(
    tmp_path: Path, harness: Open
) -> None:
    def hashes(name: str, choices: list[dict[str, object]]) -> list[str]:
        tasks = write_tasks(tmp_path / name, choices=choices)
        rows: tuple[LmEvalSample, ...] = harness(tasks, "toy_choice").run("toy_choice").samples
        return [row.question_hash for row in rows if row.metric == "acc"]

    first = [dict(doc) for doc in CHOICES]
    changed = [first[0], {**first[1], "answer": 0}, *first[2:]]
    before, after = hashes("one", first), hashes("two", changed)
    assert hashes("three", first) == before
    assert [row for row in range(5) if before[row] != after[row]] == [1]


def test_a_limit_uses_the_first_questions(tmp_path: Path, harness: Open) -> None:
    tasks = write_tasks(tmp_path / "tasks")
    every = harness(tasks, "toy_choice").run("toy_choice")
    few = harness(tasks, "toy_choice", limit=2).run("toy_choice")
    assert few.num_questions == 2
    assert few.samples == every.samples[: len(few.samples)]


def test_a_group_has_the_rows_of_its_tasks_and_an_aggregate_of_its_own(
    tmp_path: Path, harness: Open
) -> None:
    group = "group: both\ntask: [toy_choice, first_two]\naggregate_metric_list: [{metric: acc}]\n"
    other = "include: choice.yaml\ntask: first_two\n"
    tasks = write_tasks(tmp_path / "tasks", both=group, other=other)
    result = harness(tasks, "both").run("both")
    assert {row.task for row in result.samples} == {"toy_choice", "first_two"}
    assert {row.name for row in result.samples} == {"both"}
    assert result.num_questions == 10
    whole = [row for row in result.aggregates if row.is_group]
    (acc,) = {row.value for row in result.aggregates if row.metric == "acc" and not row.is_group}
    assert [(row.task, row.metric, row.value) for row in whole] == [("both", "acc", acc)]


def test_the_chat_template_formats_the_prompt(folder: Path, tmp_path: Path, harness: Open) -> None:
    doc = {"question": "The quick brown fox", "answer": ""}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    message = [{"role": "user", "content": doc["question"]}]
    prompt = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    bare = prompt.removeprefix(tokenizer.bos_token)  # the tokenizer adds it again
    answers = [{**doc, "answer": greedy(folder, bare, 6)}]
    tasks = write_tasks(tmp_path / "tasks", answers=answers)
    result = harness(tasks, "toy_exact", apply_chat_template=True).run("toy_exact")
    assert values(result, "exact_match") == [1.0]


def test_a_model_without_a_chat_template_is_refused_unless_none_is_wanted(
    folder: Path, tmp_path: Path, harness: Open
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in folder.iterdir():
        if path.name != "chat_template.jinja":
            (plain / path.name).write_bytes(path.read_bytes())
    settings = LmEvalSettings(
        tasks=("toy_exact",), include_path=pin_folder(str(write_tasks(tmp_path / "tasks")))
    )
    with pytest.raises(ConfigError, match="no chat template; set apply_chat_template=false"):
        open_lm_eval(
            plain,
            settings.model_copy(update={"dtype": "float32"}),
            RuntimeConfig(),
            allow_code_execution=False,
            scratch=tmp_path,
        )


def test_an_unknown_task_is_named_with_similar_ones(tmp_path: Path, harness: Open) -> None:
    tasks = write_tasks(tmp_path / "tasks", broken="task: [")
    with pytest.raises(ConfigError, match=r"no task 'toy_choise'; similar names: toy_choice") as e:
        harness(tasks, "toy_choise")
    assert "broken.yaml of include_path is invalid" in str(e.value)


def test_a_task_that_runs_the_models_code_is_refused_by_name(tmp_path: Path, harness: Open) -> None:
    unsafe = EXACT.replace("toy_exact", "toy_code") + "unsafe_code: true\n"
    tasks = write_tasks(tmp_path / "tasks", unsafe=unsafe)
    with pytest.raises(ConfigError, match=r"'toy_code' executes code.*allow_code_execution=true"):
        harness(tasks, "toy_code").run("toy_code")
    assert harness(tasks, "toy_code", allow=True).run("toy_code").num_questions == 2


def test_a_metric_whose_code_is_downloaded_is_refused_by_name(
    tmp_path: Path, harness: Open
) -> None:
    python = "import evaluate\n\n\ndef score(doc, results):\n    return {'x': 1.0}\n\n\n"
    downloads = EXACT.replace("toy_exact", "by_yaml").replace("exact_match", "some_metric")
    calls = EXACT.replace("toy_exact", "by_code") + "process_results: !function own.score\n"
    late = EXACT.replace("toy_exact", "at_the_end") + "process_results: !function late.score\n"
    tasks = write_tasks(tmp_path / "tasks", by_yaml=downloads, by_code=calls, late=late)
    (tasks / "own.py").write_text(f"{python}evaluate.load('code_eval')\n")
    (tasks / "late.py").write_text(
        python.replace("    return", "    evaluate.load('f')\n    return")
    )
    with pytest.raises(ConfigError, match="'by_yaml' downloads and runs the code of some_metric"):
        harness(tasks, "by_yaml").run("by_yaml")
    with pytest.raises(ConfigError, match="'by_code' downloads and runs the code of code_eval"):
        harness(tasks, "by_code").run("by_code")
    with pytest.raises(ConfigError, match="'at_the_end' downloads and runs the code of f "):
        harness(tasks, "at_the_end").run("at_the_end")


def test_data_outside_the_folder_is_refused(tmp_path: Path, harness: Open) -> None:
    (tmp_path / "elsewhere.jsonl").write_text('{"question": "?", "answer": "!"}\n')
    outside = EXACT.replace("data/exact.jsonl", "../elsewhere.jsonl")
    tasks = write_tasks(tmp_path / "tasks", exact=outside)
    with pytest.raises(ConfigError, match=r"exact\.yaml of include_path reads \.\./elsewhere"):
        harness(tasks, "toy_exact")
    absolute = EXACT.replace("data/exact.jsonl", str(tmp_path / "elsewhere.jsonl"))
    with pytest.raises(ConfigError, match="not in that folder"):
        harness(write_tasks(tmp_path / "tasks", exact=absolute), "toy_exact")
    included = f"include: {tmp_path}/other.yaml\ntask: toy_exact\n"
    with pytest.raises(ConfigError, match="outside that folder"):
        harness(write_tasks(tmp_path / "tasks", exact=included), "toy_exact")


def test_questions_that_cannot_be_had_are_an_error_that_names_the_task(
    tmp_path: Path, harness: Open
) -> None:
    missing = EXACT.replace("data/exact.jsonl", "data/gone.jsonl")
    tasks = write_tasks(tmp_path / "tasks", exact=missing)
    with pytest.raises(InputError, match=r"'toy_exact': its questions cannot be loaded .*gone"):
        harness(tasks, "toy_exact").run("toy_exact")


def test_a_package_that_a_task_needs_is_named(tmp_path: Path, harness: Open) -> None:
    needs = EXACT.replace("toy_exact", "toy_needs") + "process_results: !function own.score\n"
    tasks = write_tasks(tmp_path / "tasks", needs=needs)
    (tasks / "own.py").write_text("import no_such_package\n")
    with pytest.raises(ConfigError, match=r"'toy_needs' needs a package .*no_such_package"):
        harness(tasks, "toy_needs").run("toy_needs")


def test_a_task_without_a_result_per_question_is_refused(tmp_path: Path, harness: Open) -> None:
    rolling = (
        "task: toy_perplexity\ndataset_path: json\n"
        "dataset_kwargs: {data_files: {test: data/exact.jsonl}}\ntest_split: test\n"
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{question}}'\n"
        "metric_list: [{metric: word_perplexity}]\n"
    )
    tasks = write_tasks(tmp_path / "tasks", rolling=rolling)
    with pytest.raises(ConfigError, match="'toy_perplexity' measures perplexity"):
        harness(tasks, "toy_perplexity").run("toy_perplexity")
