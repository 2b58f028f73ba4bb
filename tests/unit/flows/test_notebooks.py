"""The notebooks of the documentation run as they are, and show what they would show now."""

import json
from pathlib import Path

import pytest

from docs.run_notebooks import Output, code_cells, notebooks, outputs_of

pytest.importorskip("pandas")


def plain(outputs: list[Output]) -> list[str]:
    """What a cell shows as text. Tables of pandas are also HTML, which is not compared."""
    return ["".join(each.get("text") or each["data"]["text/plain"]) for each in outputs]


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_runs_in_an_empty_folder_and_its_outputs_are_current(notebook: Path) -> None:
    """If they are not: python -m docs.run_notebooks"""
    kept = [plain(cell["outputs"]) for cell in code_cells(notebook)]
    assert [plain(each) for each in outputs_of(notebook)] == kept


def test_a_notebook_is_one_that_jupyter_opens() -> None:
    """The required fields of its format, version 4.5."""
    for path in notebooks():
        notebook = json.loads(path.read_text("utf-8"))
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        ids = [cell["id"] for cell in notebook["cells"]]
        assert len(set(ids)) == len(ids)
        for cell in notebook["cells"]:
            required = {"id", "cell_type", "metadata", "source"}
            if cell["cell_type"] == "code":
                required |= {"execution_count", "outputs"}
            assert cell.keys() == required
    assert notebooks()
