"""What docker/Dockerfile installs from: pyproject.toml without what says nothing of packages."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_layers_see_all_dependencies_and_nothing_else_that_changes() -> None:
    whole = (ROOT / "pyproject.toml").read_text()
    (expression,) = re.findall(r"sed '([^']+)'", (ROOT / "docker/Dockerfile").read_text())
    cut = subprocess.run(["sed", expression], input=whole, text=True, capture_output=True)
    project, seen = (tomllib.loads(each)["project"] for each in (whole, cut.stdout))
    del project["optional-dependencies"]["dev"], project["scripts"], project["authors"]
    assert seen == project
    assert list(tomllib.loads(cut.stdout)) == ["project"]
