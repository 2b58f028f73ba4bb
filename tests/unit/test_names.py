"""One name, one thing: modules, public classes and public functions over all four folders.

The module of a command (`flows/commands/NAME.py`) and its function are named after the command, and
so may share the name of what the command runs.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("pvar", "tasks", "infra", "flows")
COMMANDS = ROOT / "flows" / "commands"


def modules() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name != "__init__.py" and path.parent != COMMANDS:
                yield path


def public_definitions(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name


def repeated(places: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: where for name, where in places.items() if len(where) > 1}


def test_no_two_modules_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        places[path.stem].append(str(path.relative_to(ROOT)))
    assert len(places) > 150
    assert repeated(places) == {}


def test_no_two_files_of_tests_share_a_name() -> None:
    """pytest imports them by their names alone: of two, one is an error of the whole run."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        places[path.stem].append(str(path.relative_to(ROOT)))
    assert len(places) > 150
    assert repeated(places) == {}


def test_no_public_class_or_function_means_two_things() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for name in public_definitions(path):
            places[name].append(str(path.relative_to(ROOT)))
    assert len(places) > 400
    assert repeated(places) == {}
