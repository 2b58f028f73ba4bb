"""Each recipe of the guide works as it is written, in a copy of the tree."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes import COMMON, Block, apply, changed, commands, copy_tree, recipes
from tests.services import prefect_server
from tests.services.prefect_server import PrefectServer
from tests.services.registry import empty_database

RECIPES = recipes()
PROGRAMS = {
    "pvar": "-m flows.cli",
    "pytest": "-m pytest -p no:cacheprovider",
    "ruff": "-m ruff",
    "python": "",
    "prefect": "-m prefect",
}
STAGE = "A stage"


def test_a_block_stands_where_its_comment_says() -> None:
    text = "def f():\n    a = 1\n    b = 2\n"
    for action, expected in (
        ("before", "def f():\n    x\n    a = 1\n    b = 2\n"),
        ("after", "def f():\n    a = 1\n    x\n    b = 2\n"),
        ("replace", "def f():\n    x\n    b = 2\n"),
    ):
        assert changed(text, Block(action, "f.py", "a = 1", "    x\n")) == expected
    with pytest.raises(AssertionError, match=r"f\.py has 0 lines 'c = 3'"):
        changed(text, Block("after", "f.py", "c = 3", "x\n"))


def test_every_comment_in_the_guide_is_a_block_that_is_understood() -> None:
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    assert text.count("<!--") == sum(len(blocks) for blocks in RECIPES.values())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree, with MLflow's tables, which take long to make."""
    tree = tmp_path / "tree"
    copy_tree(tree)
    (tree / ".pvar").mkdir()
    shutil.copy(empty_database(), tree / ".pvar" / "mlflow.db")
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in (COMMON, STAGE)])
def test_a_recipe_works(recipe: str, tree: Path, running_server: PrefectServer) -> None:
    follow(recipe, tree, running_server)


@pytest.mark.slow
def test_the_recipe_of_a_stage_works_and_its_deployment_runs(
    tree: Path, prefect_home: Path
) -> None:
    """At a server of its own: no other test has deployments of the copy."""
    with prefect_server.running(prefect_home) as server:
        follow(STAGE, tree, server)
        other_pairs = f"--set policy={tree / 'tiny'} --set trim.max_words=20"
        run(f"pvar deploy --pool process --preset tiny.yaml {other_pairs}", tree, server)
        here = {"PYTHONPATH": str(tree), "PVAR_HOME": str(tree / ".pvar"), "PYTHONSAFEPATH": "1"}
        with server.worker("pvar-process", **here):
            run("prefect deployment run trim/process --watch", tree, server)
    made = list((tree / ".pvar" / "store" / "trim").glob("*/manifest.json"))
    assert len(made) == 2, made  # of the commands before, and of the deployment


def follow(recipe: str, tree: Path, server: PrefectServer) -> None:
    """Apply a recipe to the copy, and run its commands."""
    blocks = [*RECIPES[COMMON], *RECIPES[recipe]]
    apply(blocks, tree)
    for command in commands(blocks):
        run(command, tree, server)


def run(command: str, tree: Path, server: PrefectServer) -> None:
    """One command line of the guide, with the programs of this environment on the copy."""
    *variables, program, rest = split(command)
    arguments = PROGRAMS[program]
    python = shlex.quote(sys.executable)
    result = subprocess.run(
        [shutil.which("sh") or "sh", "-c", f"{' '.join(variables)} {python} {arguments} {rest}"],
        cwd=tree,
        env={
            # MLflow leaves the address of another test's database in this process.
            **{name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")},
            "PYTHONPATH": str(tree),
            "PVAR_HOME": str(tree / ".pvar"),
            "PREFECT_API_URL": server.api,
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"


def split(command: str) -> list[str]:
    """`A=b pvar run …` as its variables, the program, and the rest as it is written."""
    first, _, rest = command.partition(" ")
    return [first, *split(rest)] if "=" in first else [first, rest]
