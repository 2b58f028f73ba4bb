"""Reads the recipes of `docs/extending.md` and applies them to a copy of the tree."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "extending.md"
COMMON = "How to read the recipes"
"""Heading of what every recipe needs."""

_SECTION = re.compile(r"^## (.*)$", re.MULTILINE)
_BLOCK = re.compile(
    r"^<!-- (?P<action>create|before|after|replace|run)"
    r"(?:: (?P<path>\S+?))?(?:: (?P<line>[^\n]+))? -->\n"
    r"```\w*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """One block of a recipe."""

    action: str
    path: str
    line: str
    text: str


def recipes() -> dict[str, list[Block]]:
    """Blocks by the heading of their recipe, in order."""
    _, *parts = _SECTION.split(GUIDE.read_text(encoding="utf-8"))
    return {
        heading: [
            Block(**{name: value or "" for name, value in found.groupdict().items()})
            for found in _BLOCK.finditer(text)
        ]
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def copy_tree(target: Path) -> None:
    """The tracked files, as they are now, and what Python compiled of them.

    That holds for the copies, too, because they keep their times.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        for path in (Path(name), Path(cache_from_source(name))):
            if (ROOT / path).is_file():
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, target / path)


def apply(blocks: list[Block], tree: Path) -> None:
    """Change the tree; AssertionError where a line is not there, or there twice."""
    for block in blocks:
        path = tree / block.path
        if block.action == "create":
            assert not path.exists(), f"{block.path} is there already"
            path.write_text(block.text, encoding="utf-8")
        elif block.action != "run":
            path.write_text(changed(path.read_text(encoding="utf-8"), block), encoding="utf-8")


def changed(text: str, block: Block) -> str:
    """The text with the block before, after or in place of its line."""
    lines = text.splitlines(keepends=True)
    found = [number for number, line in enumerate(lines) if line.strip() == block.line]
    assert len(found) == 1, f"{block.path} has {len(found)} lines {block.line!r}"
    start = found[0] + (block.action == "after")
    stop = start + (block.action == "replace")
    return "".join([*lines[:start], block.text, *lines[stop:]])


def commands(blocks: list[Block]) -> Iterator[str]:
    """The lines under `run`."""
    for block in blocks:
        if block.action == "run":
            yield from block.text.splitlines()
