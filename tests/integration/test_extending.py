"""Each recipe of the guide works as it is written, in a copy of the tree."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.recipes import COMMON, Block, apply, changed, commands, copy_tree, recipes
from tests.services import prefect_server

RECIPES = recipes()
PROGRAMS = {
    "pvar": "-m flows.cli",
    "pytest": "-m pytest -p no:cacheprovider",
    "ruff": "-m ruff",
    "python": "",
    "prefect": "-m prefect",
}
NO_VARIABLES: Mapping[str, str] = {}


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


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != COMMON])
def test_a_recipe_works(recipe: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    copy_tree(tree)
    blocks = [*RECIPES[COMMON], *RECIPES[recipe]]
    apply(blocks, tree)
    for command in commands(blocks):
        run(command, tree)
    if recipe == "A stage":
        run_by_a_deployment("trim", tree, "trim.max_words=20")  # other pairs than before


def run_by_a_deployment(stage: str, tree: Path, *settings: str) -> None:
    """Deploy the copy at a server, and run its stage by its deployment on a worker."""
    here = {"PYTHONPATH": str(tree), "PVAR_HOME": str(tree / ".pvar"), "PYTHONSAFEPATH": "1"}
    options = [f"--set {each}" for each in (f"policy={tree / 'tiny'}", *settings)]
    with prefect_server.running(tree / "prefect") as server:
        prefect = {"PREFECT_API_URL": server.api}
        run(f"pvar deploy --pool process --preset tiny.yaml {' '.join(options)}", tree, prefect)
        with server.worker("pvar-process", **here):
            run(f"prefect deployment run {stage}/process --watch", tree, prefect)
    made = list((tree / ".pvar" / "store" / stage).glob("*/manifest.json"))
    assert len(made) == 2, made  # of the commands before, and of the deployment


def run(command: str, tree: Path, environment: Mapping[str, str] = NO_VARIABLES) -> None:
    """One command line of the guide, with the programs of this environment on the copy."""
    *variables, program, rest = split(command)
    arguments = PROGRAMS[program]
    python = shlex.quote(sys.executable)
    result = subprocess.run(
        [shutil.which("sh") or "sh", "-c", f"{' '.join(variables)} {python} {arguments} {rest}"],
        cwd=tree,
        env={
            **os.environ,
            "PYTHONPATH": str(tree),
            "PVAR_HOME": str(tree / ".pvar"),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"


def split(command: str) -> list[str]:
    """`A=b pvar run …` as its variables, the program, and the rest as it is written."""
    first, _, rest = command.partition(" ")
    return [first, *split(rest)] if "=" in first else [first, rest]
