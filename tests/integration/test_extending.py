"""Each recipe of the guide works as it is written, in a copy of the tree.

Two copies: one for the recipe of a stage, which changes the digests of the others, and one with all
other recipes, which a user could apply together as well. There a check that several recipes have is
run once. That each recipe also fits the tree alone is tested without running it.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.recipes import COMMON, Block, apply, changed, commands, copy_tree, recipes
from tests.services import prefect_server
from tests.services.command_process import CommandProcess, commands_in
from tests.services.prefect_server import PrefectServer
from tests.services.registry import empty_database

RECIPES = recipes()
STAGE = "A stage"
CHECKS = ("pytest ", "ruff ", "python -m ")
OTHERS = [name for name in RECIPES if name not in (COMMON, STAGE)]


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


@pytest.mark.parametrize("recipe", [STAGE, *OTHERS])
def test_a_recipe_fits_the_tree_alone(recipe: str, tmp_path: Path) -> None:
    copy_tree(tmp_path)
    apply([*RECIPES[COMMON], *RECIPES[recipe]], tmp_path)


class Copy(NamedTuple):
    """A copy of the tree with recipes, and the process that runs their commands in it."""

    tree: Path
    process: CommandProcess
    done: set[str]

    def follow(self, recipe: str) -> None:
        """Run the commands of a recipe, but checks of the whole tree only once."""
        for command in commands(RECIPES[recipe]):
            if command not in self.done:
                self.process.run(command)
            if command.startswith(CHECKS):
                self.done.add(command)


@contextmanager
def a_copy(names: Sequence[str], folder: Path, server: PrefectServer) -> Iterator[Copy]:
    """A copy with these recipes, and with MLflow's tables, which take long to make."""
    tree = folder / "tree"
    copy_tree(tree)
    (tree / ".pvar").mkdir()
    shutil.copy(empty_database(), tree / ".pvar" / "mlflow.db")
    apply([block for name in (COMMON, *names) for block in RECIPES[name]], tree)
    # MLflow leaves the address of another test's database in this process.
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    here = {
        "PYTHONPATH": str(tree),
        "PVAR_HOME": str(tree / ".pvar"),
        "PREFECT_API_URL": server.api,
    }
    with commands_in(tree, kept | here, folder / "commands.log") as process:
        copy = Copy(tree, process, set())
        copy.follow(COMMON)
        yield copy


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, running_server: PrefectServer) -> Iterator[Copy]:
    with a_copy(OTHERS, tmp_path_factory.mktemp("guide"), running_server) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OTHERS)
def test_a_recipe_works(recipe: str, copy: Copy) -> None:
    copy.follow(recipe)


@pytest.mark.slow
def test_the_recipe_of_a_stage_works_and_its_deployment_runs(
    tmp_path: Path, prefect_home: Path
) -> None:
    """At a server of its own: no other test has deployments of the copy."""
    with (
        prefect_server.running(prefect_home) as server,
        a_copy([STAGE], tmp_path, server) as copy,
    ):
        copy.follow(STAGE)
        tree, home = copy.tree, copy.tree / ".pvar"
        other_pairs = f"--set policy={tree / 'tiny'} --set trim.max_words=20"
        copy.process.run(f"pvar deploy --pool process --preset tiny.yaml {other_pairs}")
        here = {"PYTHONPATH": str(tree), "PVAR_HOME": str(home), "PYTHONSAFEPATH": "1"}
        with server.worker("pvar-process", **here):
            copy.process.run("prefect deployment run trim/trim-process --watch")
    made = list((home / "store" / "trim").glob("*/manifest.json"))
    assert len(made) == 2, made  # of the commands before, and of the deployment
