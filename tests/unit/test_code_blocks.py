"""Every block of code in README and docs holds: run, read by what reads it, or at least bound.

A page's blocks share an empty folder, with the files that the page shows and those of FILES, and a
process of their own. What is not run here has its reason in ELSEWHERE, ONLY_PARSED or NOT_RUN.
"""

import ast
import gzip
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flows.api import PipelineRun
from flows.cli import COMMANDS, GROUPS, app
from flows.commands.named_settings import named_settings
from flows.commands.rules import retrain_config
from flows.deployment_specs import DeploymentSpec, read_project
from flows.exit_codes import DONE, ERROR, GATE_NOT_PASSED, WAITING, WRONG_CALL
from infra.presets import load_config
from infra.studies import load_study
from pvar.annotation_answers import PairAnswer, parse_answer
from pvar.backtest_config import BacktestConfig
from pvar.config import PipelineConfig
from pvar.prompt_rows import parse_prompt
from pvar.records import Prompt
from tasks.graph import STAGES
from tests.code_blocks import (
    PAGES,
    ROOT,
    CodeBlock,
    blocks_in,
    code_blocks,
    shell_commands,
    shell_lines,
)
from tests.services.command_process import commands_in
from tests.workflow import fake_settings

KINDS = {"bash", "console", "text", "mermaid", "json", "yaml", "python"}
"""`text` is output, and `console` commands with it."""

ELSEWHERE = {
    (
        "docs/extending.md",
        "",
    ): "applied to a copy of the tree by tests/integration/test_extending.py",
    ("docs/own-rewards.md", "python"): "run by tests/unit/flows/test_own_rewards_page.py",
    ("docs/demo.md", "python"): "needs a promoted model: tests/integration/test_pipeline.py",
    ("docs/own-trainer.md", "python"): "trains: tests/unit/flows/test_export_command.py",
    ("docs/architecture.md", "python"): "a part of tasks/stages/score.py, compared below",
}
"""Page and kind (or all kinds) of blocks that another test runs."""

ONLY_PARSED = {
    "tasks/capitals.yaml": "for lm-evaluation-harness, whose tasks load data sets",
    "llama_factory.yaml": "for LLaMA-Factory, which is not installed",
    "axolotl.yaml": "for Axolotl, which is not installed",
}

RUN = {
    "ingest-check", "init", "schema", "variance", "select", "reliability", "judge-parse",
    "judge-agreement", "winrate",
}  # fmt: skip
"""Commands that are run: they need neither server nor store."""

NOT_RUN = {
    "show report runs diff export lineage forget gc queue doctor": "need a run or MLflow's "
    "database; bound here, and run by tests/unit/flows/test_documented_commands.py",
    "run retrain compare rounds backtest": "train: with the smallest model 25 CPU-seconds each; "
    "run by tests/integration with settings of their own",
    "benchmark audit": "load models, and start a Prefect server, 10 CPU-seconds each: "
    "tests/integration/test_benchmark_command.py, test_retrain.py",
    "notify deploy": "need a Prefect server: tests/integration/test_automations.py, "
    "test_deployments.py",
}
"""Commands that are bound only, and why."""

OTHER_PROGRAMS = {
    "make": "its targets are looked up below",
    "cd export": "of the shell",
    "aws curl hf git": "need a network",
    "vllm prefect docker": "servers and workers; the names of work pools are compared below",
}
COREUTILS = {"cp", "mkdir", "head"}
"""Programs that are run."""


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    """So that none is left out of the tests below."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = code_blocks(page)
    assert [block.place for block in blocks if block.kind not in KINDS] == []
    assert 2 * len(blocks) == len(re.findall(r"^ *(?:```|~~~)", text, re.MULTILINE))


def test_blocks_are_found_with_their_files_and_commands() -> None:
    text = (
        "a\n<!-- create: x/y.json -->\n```json\n{}\n```\n1. b\n\n   ```bash\n   # no command\n"
        "   A=1 cp a \\\n     b && pvar run --set 'x={y: 1}'  # why\n"
        "   curl -d '[{\n   1}]'\n   ```\n"
        "```yaml\n# z.yaml\nk: v\n```\n```\nold\n```\n"
    )
    found = blocks_in(text, "p.md")
    assert [(block.kind, block.file, block.line) for block in found] == [
        ("json", "x/y.json", 3), ("bash", "", 8), ("yaml", "z.yaml", 15), ("", "", 19),
    ]  # fmt: skip
    commands = [words for line in shell_lines(found[1]) for words in shell_commands(line)]
    assert commands == [
        ["cp", "a", "b"],
        ["pvar", "run", "--set", "x={y: 1}"],
        ["curl", "-d", "[{\n1}]"],
    ]


# --- Commands: bound by the command line, with settings that exist ---


def typed(page: str) -> Iterator[tuple[CodeBlock, str]]:
    for block in blocks_here(page, "bash", "console"):
        for line in shell_lines(block):
            yield block, line


def blocks_here(page: str, *kinds: str) -> Iterator[CodeBlock]:
    """Blocks of these kinds that no other test runs."""
    for block in code_blocks(page):
        if block.kind in kinds and not {(page, ""), (page, block.kind)} & ELSEWHERE.keys():
            yield block


@pytest.fixture
def folder(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's folder: its files, those of FILES, and what it copies from a checkout."""
    for name, write in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name)
    for block in blocks_here(page, "json", "yaml"):
        if block.file:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    copied = " ".join(line for _, line in typed(page) if is_run(line))
    for name in ("infra", "docker"):
        if f"{name}/" in copied:
            ignored = shutil.ignore_patterns("*.py", "__pycache__")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if any(typed(page))])
def test_commands_bind_and_their_settings_exist(page: str, folder: Path) -> None:
    for block, line in typed(page):
        for words in shell_commands(line):
            match words:
                case ["pvar", *arguments]:
                    bind(arguments, block)
                case ["make", *arguments]:
                    refuse_unknown_targets(arguments, block.place)
                case ["prefect", "worker", "start", "--pool", pool]:
                    assert pool in POOLS, block.place
                case [program, *_]:
                    known = set(" ".join(OTHER_PROGRAMS).split()) | COREUTILS
                    assert program in known, f"{block.place}: {program} is in no list of the test"


def bind(words: list[str], block: CodeBlock) -> None:
    """The command and its options exist, and so do the settings that they name."""
    assert words[0] in RUN | set(" ".join(NOT_RUN).split()), f"{block.place}: {words[0]}"
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        check_settings(command.__name__, bound.arguments)
    except Exception as error:  # whatever is wrong with it, its place is named
        raise AssertionError(f"{block.place}: {shlex.join(words)}\n{error}") from error


def check_settings(command: str, given: dict[str, Any]) -> None:
    preset, changes = given.get("preset"), given.get("set_", ())
    if command == "compare":
        arms = [named_settings("--arm", text, "") for text in given.get("arm", ())]
        arms += [(name, {"select.strategy": name}) for name in given.get("strategy", ())]
        tree = [{"name": name, "settings": settings} for name, settings in arms]
        random = {"name": "random", "settings": {"select.strategy": "random"}}
        options = {"arms": [random, *tree]} if tree else {}
        load_study(given.get("study"), preset=preset, changes=changes, options=options)
        return
    pipeline = load_config(preset, changes)
    if command in ("retrain", "deploy", "serve", "backtest"):
        config = retrain_config(pipeline, given.get("rule", ()))
    if command == "backtest":
        policies = dict(named_settings("--policy", text, "") for text in given.get("policy", ()))
        tree = {"batches": given["batches"], "retrain": config, "policies": policies}
        BacktestConfig.model_validate(tree)


POOLS = {pool.work_pool.name for pool in read_project(ROOT / "infra").stages}


def refuse_unknown_targets(words: list[str], place: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {word for word in words if "=" not in word}
    known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert targets, place
    assert targets <= known, f"{place}: make {shlex.join(words)}"


def is_run(line: str) -> bool:
    """Whether a line of a page can be run here."""
    words = next(shell_commands(line))
    if words[0] == "pvar":
        # Other judges than a lexicon are asked on a server.
        return words[1] in RUN and (words[1] != "judge-agreement" or "afinn" in line)
    return words[0] in COREUTILS


RUNNING = [page for page in PAGES if any(is_run(line) for _, line in typed(page))]
RUNNING += [page for page in PAGES if page not in RUNNING and any(blocks_here(page, "python"))]


@pytest.mark.parametrize("page", RUNNING)
def test_what_can_run_runs_in_a_process_of_its_own(
    page: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
    }
    log = tmp_path_factory.mktemp("log") / "commands.log"
    with commands_in(folder, environment, log) as process:
        for block in blocks_here(page, "python"):
            before = set(folder.iterdir()) | {folder / ".pvar"}  # where PVAR_HOME is by default
            process.run(shlex.join(["python", "-c", block.text]))
            assert set(folder.iterdir()) <= before
        for _, line in typed(page):
            if not is_run(line):
                continue
            if line.startswith("pvar "):
                (words,) = shell_commands(line)
                process.run(shlex.join(words))
            else:
                subprocess.run(["bash", "-ec", line], cwd=folder, env=environment, check=True)
    run = "\n".join(line for _, line in typed(page) if is_run(line))
    written = re.findall(r"--(?:out|rows) (\S+\.\w+)", run)
    assert [name for name in written if not (folder / name).is_file()] == []


# --- Files: read by what reads them ---


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks_here(page, "yaml"))])
def test_yaml_is_a_preset_or_what_its_name_says(page: str, folder: Path) -> None:
    for block in blocks_here(page, "yaml"):
        if block.file in ONLY_PARSED:
            assert yaml.safe_load(block.text), block.place
        elif block.file.endswith("prefect.yaml"):
            for entry in yaml.safe_load(block.text)["deployments"]:
                DeploymentSpec.model_validate(entry)
        elif "arms" in yaml.safe_load(block.text):
            load_study(block.file)
        else:
            (folder / "shown.yaml").write_text(block.text, encoding="utf-8")
            load_config("shown.yaml")


def test_the_benchmarks_page_shows_each_kind() -> None:
    blocks = [yaml.safe_load(block.text) for block in blocks_here("docs/benchmarks.md", "yaml")]
    shown = {each["kind"] for block in blocks for each in block.get("benchmarks", ())}
    kinds = PipelineConfig.model_json_schema()["properties"]["benchmarks"]["items"]["discriminator"]
    assert shown == set(kinds["mapping"])


ROW_READERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "docs/annotation.md": lambda row: isinstance(
        parse_answer(row) if "id" in row else parse_prompt(row, "test"), PairAnswer | Prompt
    ),
    "docs/operations.md": lambda row: set(row) == {"Rules"},  # for S3
}


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks_here(page, "json"))])
def test_json_is_rows_that_are_read(page: str) -> None:
    is_read = ROW_READERS.get(page, lambda row: isinstance(parse_prompt(row, "test"), Prompt))
    for block in blocks_here(page, "json"):
        rows = list(json_values(block.text))
        assert rows, block.place
        assert all(is_read(row) for row in rows), block.place


def json_values(text: str) -> Iterator[dict[str, Any]]:
    decoder, start = json.JSONDecoder(), 0
    while start < len(text.rstrip()):
        value, end = decoder.raw_decode(text, start)
        yield value
        start = end + len(text[end:]) - len(text[end:].lstrip())


def test_a_part_of_a_file_is_in_it() -> None:
    code = (ROOT / "tasks" / "stages" / "score.py").read_text(encoding="utf-8")
    (block,) = (each for each in code_blocks("docs/architecture.md") if each.kind == "python")
    shown, there = (
        {ast.unparse(node) for node in ast.parse(text).body} for text in (block.text, code)
    )
    assert shown <= there


# --- What a page names in its text ---

_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def spans(page: str) -> list[str]:
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)
    return _SPAN.findall(text)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_exist_with_their_options(page: str) -> None:
    reference = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    sections = {
        part.partition("\n")[0]: part for part in re.split(r"^##+ pvar ", reference, flags=re.M)[1:]
    }
    unknown = []
    for span in spans(page):
        command = re.match(r"pvar ([a-z][a-z-]*)(?: ([a-z][a-z-]*)\b)?", span)
        options = re.findall(r" (--[a-z-]+)", span)
        if command is None:
            continue
        of_command = "".join(v for k, v in sections.items() if k.split()[0] == command[1])
        is_known = command[1] in COMMANDS or (
            command[1] in GROUPS and (command[2] is None or " ".join(command.groups()) in sections)
        )
        if not is_known or any(f"`{option}" not in of_command for option in options):
            unknown.append(span)
    assert unknown == []


def test_the_exit_codes_and_stages_of_pages_are_those_of_the_code() -> None:
    operations, architecture = (
        (ROOT / "docs" / name).read_text(encoding="utf-8")
        for name in ("operations.md", "architecture.md")
    )
    (row,) = re.findall(r"^\| how it ended \|.*", operations, re.MULTILINE)
    codes = re.findall(r"\b(\d) (done and|done|an error|a wrong call|something waits)", row)
    assert codes == [
        (str(DONE), "done"),
        (str(ERROR), "an error"),
        (str(WRONG_CALL), "a wrong call"),
        (str(GATE_NOT_PASSED), "done and"),
        (str(WAITING), "something waits"),
    ]
    (table,) = re.findall(r"^\| stage \| does \|.*\n(?:\|.*\n)+", architecture, re.MULTILINE)
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(STAGES)


@pytest.mark.parametrize("page", [page for page in PAGES if "/decisions/" not in page])
def test_keys_in_the_text_exist(page: str) -> None:
    reference = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    keys = {key.replace("[]", "") for key in re.findall(r"^\| `([\w.\[\]*]+)` \|", reference, re.M)}
    sections = {key.partition(".")[0] for key in keys if "." in key}
    named = (re.match(r"([a-z_]+)(\.[a-z_]+)+(?=[=:]|$)", span) for span in spans(page))
    found = {match[0] for match in named if match and match[1] in sections}
    files = {name for name in found if name.endswith((".parquet", ".py", ".json", ".yaml"))}
    assert found - files - keys == set()


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_in_the_text_exist(page: str) -> None:
    for span in spans(page):
        if span.startswith("make ") and span.isascii():
            refuse_unknown_targets(shlex.split(span)[1:], page)


def test_the_page_about_python_names_what_a_run_has() -> None:
    named = {
        name for span in spans("docs/python.md") for name in re.findall(r"\brun\.([a-z]+)", span)
    }
    offered = {name for name in vars(PipelineRun) if not name.startswith("_")}
    assert named == offered - {"nodes"}


def test_variables_in_pages_are_read_by_the_code() -> None:
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("infra", "flows", "pvar", "tests")
        for path in (ROOT / folder).rglob("*.py")
    )
    named = set(re.findall(r"\bPVAR_[A-Z_]*[A-Z]\b", pages))
    assert {name for name in named if name not in code} == set()


# --- Files that pages take for granted ---


def lines(*rows: object) -> Callable[[Path], object]:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return lambda path: path.write_bytes(
        gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode()
    )


def settings() -> dict[str, Any]:
    tree = fake_settings(Path("prompts.jsonl"), **{"evaluate.answers.engine": "transformers"})
    del tree["evaluate"]["opponent"]
    return tree


REWARDS = [
    {"prompt_id": f"p{prompt}", "reward": float(prompt * response)}
    for prompt in range(12)
    for response in range(4)
]
POOL = [
    {"prompt": f"Say {n}.", "responses": list("abcdefgh"), "rewards": [n * k / 9 for k in range(8)]}
    for n in range(12)
]
PREFERENCE = {"prompt": "Say something kind.", "chosen": "good", "rejected": "bad"}
GAME = {"question_id": "q", "model": "m", "baseline": "gpt-4-0314", "games": [{"score": "A>B"}] * 2}
QUESTIONS = [f"Question {number}?" for number in range(6)]
JUDGED = [
    {"instruction": q, "generator_1": "base", "generator_2": "mine", "preference": 1 + n / 5}
    for n, q in enumerate(QUESTIONS)
]
OUTPUTS = [
    {"instruction": q, "output": n * "o", "generator": "mine"} for n, q in enumerate(QUESTIONS)
]
BASELINE = [{"instruction": q, "output": "bbb", "generator": "base"} for q in QUESTIONS]
DIFFICULTY = "index,instruction_difficulty\n" + "".join(f"{n},{n - 2.5}\n" for n in range(6))
GAMED = "preference,index,std_delta_len,instruction_difficulty\n" + "".join(
    f"{n / 5},{n},{n - 2},{n - 2.5}\n" for n in range(6)
)


def example(path: Path) -> None:
    """A file of `pvar init`'s folder, into which README goes."""
    shutil.copy(ROOT / "infra/example" / path.name.removeprefix("."), path)


FILES: dict[str, Callable[[Path], object]] = {
    "preset.yaml": example,
    ".env.example": example,
    "my.yaml": lambda path: path.write_text(yaml.safe_dump(settings())),
    "prompts.jsonl": lines({"prompt": "Name a river."}),
    "my-rows.jsonl": lines({"prompt": "Name a river."}),
    "rewards.jsonl": lines(*REWARDS),
    "rewards.jsonl.gz": lines(*REWARDS),
    "rewards.parquet": lambda path: pq.write_table(pa.Table.from_pylist(REWARDS), path),
    "pool.jsonl": lines(*POOL),
    "pairs.jsonl": lines(*({"chosen_reward": n % 3, "rejected_reward": n % 2} for n in range(9))),
    "preferences.jsonl": lines(PREFERENCE),
    "judgments.jsonl": lines({"judgment": "[[A>B]]"}),
    **dict.fromkeys(("games.jsonl", "model_judgment/gpt-4.1/MODEL.jsonl"), lines(GAME)),
    "annotations.json": lines(*JUDGED),
    **dict.fromkeys(("outputs.json", "model_outputs.json"), lines(*OUTPUTS)),
    **dict.fromkeys(("baseline.json", "alpaca_eval_gpt4_baseline.json"), lines(*BASELINE)),
    **{
        f"{folder}/{name}": lambda path, text=text: path.write_text(text)
        for folder in ("calibration", "alpaca_eval")
        for name, text in (("instruction_difficulty.csv", DIFFICULTY), ("df_gamed.csv", GAMED))
    },
}
