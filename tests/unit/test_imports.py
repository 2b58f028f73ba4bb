"""What the core may use. `lint-imports` checks the other directions: see pyproject.toml."""

import ast
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]

CORE = {"numpy", "pydantic", "scipy", "sklearn"}
"""What the core may use beside the standard library."""


def test_the_core_uses_few_libraries_and_no_services() -> None:
    graph = grimp.build_graph("pvar", include_external_packages=True, cache_dir=None)
    used = {module for module in graph.modules if module.partition(".")[0] != "pvar"}
    assert used - sys.stdlib_module_names == CORE


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
