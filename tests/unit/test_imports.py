"""The direction of imports between folders, read from the source: also those inside functions.

    flows → {tasks, infra, pvar}    tasks → pvar    infra → pvar    pvar → nothing of ours

Services and engines stay where they are wrapped, so that each can be replaced in one place.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("pvar", "tasks", "infra", "flows")
MAY_IMPORT = {
    "pvar": {"pvar"},
    "tasks": {"tasks", "pvar"},
    "infra": {"infra", "pvar"},
    "flows": {"flows", "tasks", "infra", "pvar"},
}
ONLY_IN = {
    "boto3": ("infra/",),
    "botocore": ("infra/",),
    "mlflow": ("infra/",),
    "openai": ("infra/",),
    "huggingface_hub": ("infra/",),
    "vllm": ("infra/engines/vllm_sampler.py", "infra/engines/vllm_worker.py"),
    "trl": ("tasks/training/",),
    "prefect": ("flows/",),
}
"""Library → beginnings of the paths that may import it."""

CORE = {"numpy", "pydantic", "scipy", "sklearn", "datasketch"}
"""What the core may use beside the standard library."""


class Import(NamedTuple):
    """A module that a file imports, by its full name."""

    path: str
    line: int
    module: str
    is_checked_only: bool
    """Below `if TYPE_CHECKING`: never run."""

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def imports_of(path: str, source: str) -> Iterator[Import]:
    """Every import of a file, wherever it stands."""
    tree = ast.parse(source)
    checked_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module=module, level=0, names=names):
                modules = [f"{module}.{name.name}" for name in names]
            case ast.ImportFrom(level=level):
                package = path.removesuffix(".py").split("/")[:-level]
                modules = [".".join([*package, node.module or ""])]
            case _:
                continue
        for module in modules:
            yield Import(path, node.lineno, module, id(node) in checked_only)


def imports() -> list[Import]:
    """All imports of the product."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [
        each
        for file in files
        for each in imports_of(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    ]


def test_the_reader_sees_imports_of_every_kind() -> None:
    source = (
        "import trl.trainer\n"
        "def f():\n    from mlflow import entities\n"
        "if TYPE_CHECKING:\n    from trl import DPOTrainer\n"
        "from .near import thing\n"
    )
    assert [(each.module, each.is_checked_only) for each in imports_of("tasks/x.py", source)] == [
        ("trl.trainer", False),
        ("tasks.near", False),
        ("mlflow.entities", False),
        ("trl.DPOTrainer", True),
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_in_one_direction(folder: str) -> None:
    wrong = [
        f"{each.path}:{each.line} imports {each.module}"
        for each in imports()
        if each.path.startswith(f"{folder}/")
        and each.top in (*FOLDERS, "tests")
        and each.top not in MAY_IMPORT[folder]
    ]
    assert wrong == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_where_it_is_wrapped(library: str) -> None:
    places = ONLY_IN[library]
    wrong = [
        f"{each.path}:{each.line} imports {each.module}"
        for each in imports()
        if each.top == library and not each.path.startswith(places)
    ]
    assert wrong == []


def test_the_core_uses_few_libraries_and_no_services() -> None:
    wrong = [
        f"{each.path}:{each.line} imports {each.module}"
        for each in imports()
        if each.path.startswith("pvar/")
        and each.top not in {"pvar", *CORE, *sys.stdlib_module_names}
    ]
    assert wrong == []


def test_the_core_has_no_files_clock_environment_or_log() -> None:
    outside = {"os", "time", "socket", "subprocess", "secrets", "logging", "tempfile", "shutil"}
    wrong = [
        f"{each.path}:{each.line} imports {each.module}"
        for each in imports()
        if each.path.startswith("pvar/") and each.top in outside
    ]
    assert wrong == []


def test_the_core_draws_from_generators_that_it_is_given_or_seeds() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"
        for path in sorted((ROOT / "pvar").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value) in ("random", "np.random", "numpy.random")
        and node.attr not in ("Random", "default_rng", "Generator")
    ]
    assert wrong == []
