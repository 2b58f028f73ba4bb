"""The blocks of code in README, docs and the README of `pvar init`: what is in them, by page.

A comment `<!-- create: FILE -->` above a block, or `# FILE` as its first line, names the file that
it is. Blocks of commands may have several commands on a line, and lines that go on.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GENERATED = "docs/reference/commands.md"
"""Written from the code, with the use of each command as a block."""

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "infra/example/README.md")),
        *(ROOT / "docs").rglob("*.md"),
    )
    if path.relative_to(ROOT).as_posix() != GENERATED
)

_BLOCK = re.compile(
    r"^(?:<!-- create: (?P<file>\S+) -->\n)?"
    r"(?P<indent> *)```(?P<kind>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_NAMED = re.compile(r"# (?P<file>[\w./-]+\.(?:yaml|json))\n")
_SEPARATORS = {"&&", "||", ";", "|"}
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")


class CodeBlock(NamedTuple):
    """One fenced block."""

    page: str
    line: int
    kind: str
    """What stands behind the fence: the language."""
    file: str
    """Name of the file that it is, or empty."""
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def code_blocks(page: str) -> list[CodeBlock]:
    """All blocks of a page, in order."""
    return blocks_in((ROOT / page).read_text(encoding="utf-8"), page)


def blocks_in(text: str, page: str) -> list[CodeBlock]:
    blocks = []
    for found in _BLOCK.finditer(text):
        indent = found["indent"]
        body = re.sub(rf"^{indent}", "", found["text"], flags=re.MULTILINE)
        named = _NAMED.match(body)
        file = found["file"] or (named["file"] if named else "")
        line = text.count("\n", 0, found.start("kind")) + 1
        blocks.append(CodeBlock(page, line, found["kind"].strip(), file, body))
    return blocks


def shell_lines(block: CodeBlock) -> Iterator[str]:
    """Lines of a block of commands; one that goes on is one line. Of `console`, what is typed."""
    text = block.text
    if block.kind == "console":
        typed = (line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))
        text = "\n".join(typed)
    line = ""
    for part in text.splitlines(keepends=True):
        line += part
        if not line.endswith("\\\n") and _is_closed(line):
            if shlex.split(line, comments=True):
                yield line.strip()
            line = ""
    if line:
        raise ValueError(f"{block.place}: a quote that is not closed: {line!r}")


def shell_commands(line: str) -> Iterator[list[str]]:
    """The commands of a line, in words, without assignments before them and redirections."""
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars="<>|&;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _SEPARATORS:
            words.append(word)
            continue
        if ">" in words:
            words = words[: words.index(">")]
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        if words:
            yield words
        words = []


def _is_closed(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return False
    return True
