"""What the documents name is there: files of the tree, links, and the pages that they lead to."""

import re
from pathlib import Path

import pytest
import yaml

from infra.presets import load_config
from pvar.config import PipelineConfig

ROOT = Path(__file__).parents[2]
FOLDERS = ("pvar", "tasks", "flows", "infra", "docker", "tests", "docs", ".ci")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
    if path.exists()
)

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(rf"`((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def named_paths(text: str) -> list[str]:
    """Files and folders of the tree in code spans; blocks of code are left out."""
    return _PATH.findall(_FENCED.sub("", text))


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = _HEADING.findall(_FENCED.sub("", text))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_paths_are_found_where_a_reader_sees_them() -> None:
    text = "`pvar/config.py`, `infra/presets/`\n```\ncp `tests/x`\n```\n`train/ab12`, `.ci/run`"
    assert named_paths(text) == ["pvar/config.py", "infra/presets/", ".ci/run"]


def test_anchors_are_those_of_github() -> None:
    assert anchors("# A b\n```\n# c\n```\n## The demo's settings: `x`") == {
        "a-b",
        "the-demos-settings-x",
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert [path for path in named_paths(text) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_within_the_tree_leads_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    broken = []
    for link in _LINK.findall(_FENCED.sub("", text)):
        path, _, anchor = link.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        target = (ROOT / document).parent / path if path else ROOT / document
        is_there = target.exists()
        if not is_there or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def presets_in(text: str) -> list[str]:
    """The blocks of YAML that are a configuration; others begin with a comment, their file."""
    return [block for block in _YAML.findall(text) if not block.startswith("# ")]


def test_a_block_of_another_file_is_no_preset() -> None:
    text = "```yaml\npolicy: a\n```\n```yaml\n# tasks/b.yaml\ntask: b\n```\n```\npolicy: c\n```\n"
    assert presets_in(text) == ["policy: a\n"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_preset_that_a_document_shows_can_be_loaded(document: str, tmp_path: Path) -> None:
    for block in presets_in((ROOT / document).read_text(encoding="utf-8")):
        path = tmp_path / "preset.yaml"
        path.write_text(block, encoding="utf-8")
        load_config(str(path))


def test_the_benchmarks_page_shows_each_kind() -> None:
    blocks = presets_in((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    shown = {
        benchmark["kind"]
        for block in blocks
        for benchmark in yaml.safe_load(block).get("benchmarks", ())
    }
    kinds = PipelineConfig.model_json_schema()["properties"]["benchmarks"]["items"]["discriminator"]
    assert shown == set(kinds["mapping"])
