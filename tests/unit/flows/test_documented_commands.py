"""Commands of README and docs that need a run, as the pages show them, after a run with fakes."""

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from flows.run_record import NodeRecord, RunRecord, save_run
from tests.code_blocks import PAGES, ROOT, code_blocks, shell_commands, shell_lines
from tests.services.command_process import CommandProcess, commands_in
from tests.services.registry import empty_database
from tests.workflow import fake_settings, start_workflow, write_prompts

COMMANDS = {
    "show", "runs", "diff", "report", "export", "lineage", "forget", "queue", "gc", "doctor",
}  # fmt: skip
ELSEWHERE = {"docs/one-gpu.md": "doctor there finds no GPU"}
NODES = ("ingest", "sample", "score-vader", "select", "pair")
EXAMPLE = "pair/5325b601"
"""Stands on a page for any artifact of pairs."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `.pvar` after a run up to its pairs, and files that pages take for granted."""
    folder = tmp_path_factory.mktemp("documented")
    workflow = start_workflow(folder / "run")
    workflow.make(*NODES)
    home = workflow.wiring.settings.home
    shutil.copy(empty_database(), home / "mlflow.db")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    nodes = [NodeRecord(name=n, artifact=workflow.nodes[n].keys.root, state="made") for n in NODES]
    record = RunRecord(
        run="20260101-000000-0000",
        started_at=now,
        finished_at=now,
        preset="my.yaml",
        config=workflow.config,
        mlflow_run="m",
        mlflow_experiment="e",
        nodes=tuple(nodes),
    )
    save_run(workflow.store, record)
    source = write_prompts(folder / "rows.jsonl")
    (folder / "my.yaml").write_text(yaml.safe_dump(fake_settings(source)))
    source.write_text("\n".join(source.read_text().splitlines()[:2]))
    (folder / "ids.txt").write_text("f" * 16)
    for name in ("preset.yaml", "prompts.jsonl"):  # of the project that `pvar init` writes
        shutil.copy(ROOT / "infra/example" / name, folder)
    return folder


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[CommandProcess]:
    kept = {name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LC_ALL")}
    (home,) = {path.parent for path in folder.glob("**/mlflow.db")}
    here = {"PYTHONPATH": str(ROOT), "PVAR_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with commands_in(folder, kept | here, folder / "commands.log") as commands:
        commands.run("pvar queue export latest --budget 2 --out queue-6")
        yield commands


def documented() -> list[tuple[str, str]]:
    """Pages and commands; those of docs/extending.md have a test of their own."""
    return [
        (page, shlex.join(words))
        for page in PAGES
        if page != "docs/extending.md" and page not in ELSEWHERE
        for block in code_blocks(page)
        if block.kind == "bash"
        for line in shell_lines(block)
        for words in shell_commands(line)
        if words[0] == "mkdir" or (words[0] == "pvar" and words[1] in COMMANDS)
    ]


@pytest.mark.parametrize(("page", "command"), documented())
def test_a_documented_command_works_after_a_run(
    page: str, command: str, folder: Path, process: CommandProcess
) -> None:
    """In the order of the pages: a later command may use what an earlier one wrote."""
    (pairs,) = folder.glob("**/store/pair/*")
    if "queue import" in command:
        answer_the_queue(folder / "queue-7" / "queue.jsonl", folder / "export.json")
    words = shlex.split(command)
    if words[0] == "mkdir":
        (folder / words[-1]).mkdir(exist_ok=True)
        return
    process.run(command.replace(EXAMPLE, f"pair/{pairs.name[:8]}"))
    if "--out" in words:
        assert (folder / words[words.index("--out") + 1]).exists()


def answer_the_queue(queue: Path, answers: Path) -> None:
    """As somebody who prefers the first answer of each pair."""
    given = {"preferred": 1, "annotator": "ann", "time": "2026-11-26T12:00:00Z"}
    pairs = [json.loads(line) for line in queue.read_text().splitlines()]
    rows = [json.dumps({"id": pair["pair_id"], **given}) for pair in pairs]
    answers.write_text("\n".join(rows))
