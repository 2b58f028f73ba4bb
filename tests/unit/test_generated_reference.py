"""The pages of `docs/reference/` say what the code does now, whoever writes them and wherever."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from docs import generate_reference
from flows.cli import COMMANDS
from pvar.config import PipelineConfig
from pvar.retrain_decision import RetrainConfig
from pvar.study_config import StudyConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generate_reference.pages()


def needs_cyclopts_4() -> None:
    """Later ones write types of values, and the program that runs, into the page of commands."""
    if not version("cyclopts").startswith("4."):
        pytest.skip("cyclopts 4, which requirements.lock has, renders the page of commands")


@pytest.mark.parametrize("name", ["commands.md", "configuration.md"])
def test_a_page_is_up_to_date(name: str, pages: dict[str, str]) -> None:
    if name == "commands.md":
        needs_cyclopts_4()
    page = generate_reference.FOLDER / name
    if page.read_text(encoding="utf-8") != pages[name]:
        pytest.fail(f"{page.relative_to(ROOT)} is stale; write it again: make reference")


def test_the_pages_depend_on_neither_terminal_nor_environment(
    pages: dict[str, str], tmp_path: Path
) -> None:
    needs_cyclopts_4()
    elsewhere = {
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "PVAR_HOME": str(tmp_path / "pvar"),
        "PVAR_STORE_URI": "s3://elsewhere",
        "COLUMNS": "30",
        "TERM": "dumb",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "7",
    }
    code = "import sys; from docs.generate_reference import pages; sys.stdout.buffer.write("
    code += "''.join(pages().values()).encode())"
    path = {"PATH": os.environ.get("PATH", "")}
    written = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=path | elsewhere, capture_output=True
    )
    assert written.stderr == b""
    assert written.stdout.decode() == "".join(pages.values())


def test_every_key_stands_on_the_page_by_its_path(pages: dict[str, str]) -> None:
    missing = [
        path
        for path in paths_of(PipelineConfig())
        if f"| `{path}` |" not in pages["configuration.md"]
    ]
    assert missing == []


def paths_of(settings: BaseModel, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all settings, and of what models they hold; placement is by `*`."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        yield f"{prefix}{name}"
        if isinstance(value, BaseModel):
            below = f"{prefix}*." if prefix == "runtime.placement." else f"{prefix}{name}."
            yield from paths_of(value, below)


@pytest.mark.parametrize("model", [PipelineConfig, RetrainConfig, StudyConfig])
def test_every_key_of_every_kind_stands_on_the_page(
    model: type[BaseModel], pages: dict[str, str]
) -> None:
    """Those of kinds, lists and settings that are null by default, too. A pipeline that is part of
    something else is on the page once."""
    schema = model.model_json_schema()
    listed = set(re.findall(r"^\| `([^`]+)` \|", pages["configuration.md"], re.MULTILINE))
    keys = set(keys_of(schema, schema["$defs"]))
    below = {key for key in keys if key.startswith("pipeline.")}
    assert len(keys) > 250
    assert keys - below - listed == set()


def keys_of(node: dict[str, Any], models: dict[str, Any], path: str = "") -> Iterator[str]:
    """Dotted paths in a JSON Schema; `[]` is an entry of a list, `*` any stage of a placement."""
    if "$ref" in node:
        node = models[node["$ref"].rpartition("/")[2]]
    for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from keys_of(choice, models, path)
    if isinstance(node.get("items"), dict):
        yield from keys_of(node["items"], models, f"{path}[]")
    for name, value in node.get("properties", {}).items():
        key = re.sub(r"(runtime\.placement)\.\w+\.", r"\1.*.", f"{path}.{name}".lstrip("."))
        yield key
        yield from keys_of(value, models, key)


def test_a_default_is_the_one_at_its_path(pages: dict[str, str]) -> None:
    # One class, two places: evaluate.answers has a temperature of its own.
    page = pages["configuration.md"]
    assert "| `sample.temperature` | number | `1` |" in page
    assert "| `evaluate.answers.temperature` | number | `0.7` |" in page


def test_each_kind_has_a_section_and_what_it_needs_is_marked(pages: dict[str, str]) -> None:
    page = pages["configuration.md"]
    assert "### `score.reward_models[]`, kind `implicit`" in page
    assert "| `score.reward_models[].policy` | text | **required** |" in page
    assert "### `evaluate.judge.reward_model`, kind `classifier`" in page
    assert "log π(y|x)" in page  # outside a table a bar needs no escape


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_shows_its_whole_docstring(command: str, pages: dict[str, str]) -> None:
    module = command.replace("-", "_")
    tree = ast.parse((ROOT / "flows" / "commands" / f"{module}.py").read_text(encoding="utf-8"))
    (function,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == module
    )
    text, _, parameters = (ast.get_docstring(function) or "").partition("Parameters\n-------")
    section = one_line(pages["commands.md"].partition(f"\n## pvar {command}\n")[2])
    section = section.partition(" ## pvar ")[0]
    for paragraph in text.split("\n\n"):
        assert one_line(paragraph) in section
    for line in parameters.splitlines():
        if line.startswith("    "):
            assert one_line(line) in section


def one_line(text: str) -> str:
    return " ".join(text.split())
