"""What the documents name is there: files of the tree, links, and the pages that they lead to."""

import re
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest

from tasks.graph import STAGES

ROOT = Path(__file__).parents[2]
FOLDERS = ("pvar", "tasks", "flows", "infra", "docker", "tests", "docs", ".ci")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "tests").rglob("*.md"),
    )
)

_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
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
        if urlsplit(link).scheme:
            continue
        target = (ROOT / document).parent / path if path else ROOT / document
        is_there = target.exists()
        if not is_there or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_elsewhere_is_an_address(document: str) -> None:
    """It is not asked whether somebody answers there."""
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [urlsplit(link) for link in _LINK.findall(_FENCED.sub("", text))]
    assert [
        link.geturl()
        for link in links
        if link.scheme and (link.scheme != "https" or "." not in (link.hostname or ""))
    ] == []


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - set(_LINK.findall(listed)) == set()


def test_the_picture_names_the_stages_of_every_run() -> None:
    picture = ElementTree.parse(ROOT / "docs" / "stages.svg").getroot()
    names = ("ingest", "sample", "score", "select", "pair", "train", "evaluate", "promote")
    shown = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert set(names) <= set(shown)
    assert set(names) <= set(STAGES)
