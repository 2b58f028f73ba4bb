"""Compares two folders of snapshots through the written mapping and shows what else differs.

    python -m tests.differential.compare BEFORE AFTER [--relative 1.5e-5] [--unmapped]

The exit code is 1 where anything differs: a value, a row, a node, a configuration, and, in AFTER
alone, two configurations that must come to the same. The default tolerance is one unit of the last
of six digits, in which a rounding can differ.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from tests.differential.configurations import CONFIGURATIONS
from tests.differential.mapping import MAPPING, Changes

Leaves = dict[str, JsonValue]
"""Path → value that is no mapping; an empty mapping is one."""

ONE_DIGIT = 1.5e-5
"""Relative: 1.00000 and 1.00001 are equal."""
NOISE = 1e-9
NUM_EXAMPLES = 3
UNCHANGED = Changes({}, {}, {})
ANOTHER_WAY = Changes({}, {}, {"**/state": "what was made before a death is reused after it"})
"""Between two configurations that come to the same figures."""


class Difference(NamedTuple):
    """A value that one side lacks, or that differs."""

    path: str
    before: JsonValue
    after: JsonValue

    @property
    def text(self) -> str:
        """In words."""
        if isinstance(self.before, Absent):
            return f"new: {_short(self.after)}"
        if isinstance(self.after, Absent):
            return f"gone: {_short(self.before)}"
        return f"{_short(self.before)} → {_short(self.after)}"


class Absent(str):
    """No such path."""


ABSENT = Absent("absent")


def flatten(tree: Mapping[str, JsonValue], prefix: str = "") -> Leaves:
    """All values by their paths."""
    leaves: Leaves = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            leaves |= flatten(value, f"{path}/")
        else:
            leaves[path] = value
    return leaves


def translate(leaves: Leaves, changes: Changes) -> Leaves:
    """A snapshot of before, with the paths and texts of today.

    Raises ValueError where two paths would become one.
    """
    translated: Leaves = {}
    for path, value in leaves.items():
        today = _renamed(path, changes.renamed)
        texts = next((t for p, t in changes.values.items() if _match(p, today)), {})
        if today in translated:
            raise ValueError(f"the mapping leads two paths to {today}, {path} is the second")
        translated[today] = _reworded(value, texts)
    return translated


def _reworded(value: JsonValue, texts: Mapping[str, str]) -> JsonValue:
    match value:
        case str():
            return texts.get(value, value)
        case list():
            return [_reworded(item, texts) for item in value]
        case _:
            return value


def _renamed(path: str, renamed: Mapping[str, str]) -> str:
    for before, after in renamed.items():
        if match := _match(before, path):
            parts = re.split(r"\*\*|\*", after)
            matched = [*match.groups()[: len(parts) - 1], ""]
            return "".join(part + found for part, found in zip(parts, matched, strict=True))
    return path


def _match(pattern: str, path: str) -> re.Match[str] | None:
    return _compiled(pattern).fullmatch(path)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    wild = {"**": "(.*)", "*": "([^/]*)"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))


def differences(
    before: Leaves, after: Leaves, changes: Changes, relative: float = ONE_DIGIT
) -> list[Difference]:
    """What the changes do not explain, in the order of the paths."""
    translated = translate(before, changes)
    return [
        Difference(path, translated.get(path, ABSENT), after.get(path, ABSENT))
        for path in sorted(translated.keys() | after.keys())
        if not any(_match(pattern, path) for pattern in changes.ignored)
        and not _equal(translated.get(path, ABSENT), after.get(path, ABSENT), relative)
    ]


def _equal(before: JsonValue, after: JsonValue, relative: float) -> bool:
    match before, after:
        case Absent(), _:
            return isinstance(after, Absent)
        case (bool(), _) | (_, bool()):
            return before is after
        case (int() | float() as one, float() as other) | (float() as one, int() as other):
            return math.isclose(one, other, rel_tol=relative, abs_tol=NOISE)
        case list(), list():
            return len(before) == len(after) and all(
                _equal(one, other, relative) for one, other in zip(before, after, strict=True)
            )
        case dict(), dict():
            return before.keys() == after.keys() and all(
                _equal(before[key], after[key], relative) for key in before
            )
        case _:
            return type(before) is type(after) and before == after


def describe(found: Sequence[Difference]) -> Iterator[str]:
    """Readable lines: rows of one table together, the first few of them shown."""
    groups: dict[tuple[str, str], list[Difference]] = {}
    for difference in found:
        groups.setdefault(_place(difference), []).append(difference)
    for (place, kind), those in groups.items():
        rows = "" if len(those) == 1 else f" ({len(those)} rows)"
        yield f"  {place}: {kind}{rows}" if kind else f"  {place}{rows}"
        for difference in those[:NUM_EXAMPLES]:
            yield f"    {_row(difference.path)}{difference.text}"
        if len(those) > NUM_EXAMPLES:
            yield f"    and {len(those) - NUM_EXAMPLES} more"


def _place(difference: Difference) -> tuple[str, str]:
    """Path without the row, and whether it came or went."""
    kind = (
        "new" if isinstance(difference.before, Absent)
        else "gone" if isinstance(difference.after, Absent)
        else ""
    )  # fmt: skip
    table = _match("**/tables/*/*/*", difference.path)
    if table is None:
        return difference.path, kind
    whole, name, _, column = table.groups()
    return f"{whole}/tables/{name}, column {column}", kind


def _row(path: str) -> str:
    table = _match("**/tables/*/*/*", path)
    return "" if table is None else f"{table.group(3)}: "


def _short(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:99]}…"


def read(path: Path) -> Leaves:
    """A snapshot's values by their paths."""
    return flatten(json.loads(path.read_text()))


def compare_folders(
    before: Path, after: Path, changes: Changes, relative: float = ONE_DIGIT
) -> Iterator[str]:
    """Lines of what differs; none where nothing does."""
    names = sorted({path.stem for folder in (before, after) for path in folder.glob("*.json")})
    if not names:
        yield f"{before} and {after} hold no snapshots"
    for name in names:
        missing = [folder for folder in (before, after) if not (folder / f"{name}.json").exists()]
        if missing:
            yield f"{name}: not in {missing[0]}"
            continue
        file = f"{name}.json"
        found = differences(read(before / file), read(after / file), changes, relative)
        yield from _titled(name, found)
    for name in names:
        twin = CONFIGURATIONS[name].same_as if name in CONFIGURATIONS else None
        one, other = after / f"{twin}.json", after / f"{name}.json"
        if twin and one.exists() and other.exists():
            found = differences(read(one), read(other), ANOTHER_WAY, relative)
            yield from _titled(f"{name} must come to the same as {twin}", found)


def _titled(title: str, found: Sequence[Difference]) -> Iterator[str]:
    if found:
        yield f"{title}: {len(found)} values differ"
        yield from describe(found)


def unused(before: Path, after: Path, changes: Changes) -> Iterator[str]:
    """Patterns of the mapping that match nothing any more."""
    old = {path for file in before.glob("*.json") for path in read(file)}
    today = {path for file in after.glob("*.json") for path in read(file)}
    today |= {_renamed(path, changes.renamed) for path in old}
    sides: Iterable[tuple[Iterable[str], set[str]]] = (
        (changes.renamed, old),
        ({**changes.values, **changes.ignored}, today),
    )
    for patterns, paths in sides:
        for pattern in patterns:
            if not any(_match(pattern, path) for path in paths):
                yield f"the mapping's {pattern} matches nothing"


def main(arguments: Sequence[str]) -> int:
    """Print what differs; 1 where anything does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--relative", type=float, default=ONE_DIGIT, help="tolerance of numbers")
    parser.add_argument("--unmapped", action="store_true", help="leave the mapping out")
    options = parser.parse_args(arguments)
    changes = UNCHANGED if options.unmapped else MAPPING
    for line in unused(options.before, options.after, changes):
        print(line)
    lines = list(compare_folders(options.before, options.after, changes, options.relative))
    print("\n".join(lines) if lines else "no difference")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
