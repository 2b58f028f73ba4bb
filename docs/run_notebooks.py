"""Runs the notebooks of `docs/notebooks/` and writes what their cells show into them.

    python -m docs.run_notebooks

Each runs in a process of its own in an empty folder, cell by cell, without Jupyter. What a cell
logs to standard error is not kept.
"""

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"

Output = dict[str, Any]


def notebooks() -> list[Path]:
    """The notebooks."""
    return sorted(FOLDER.glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """Its cells with code."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def outputs_of(notebook: Path) -> list[list[Output]]:
    """What each cell with code shows if the notebook runs in an empty folder."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PVAR_", "PREFECT_", "MLFLOW_"))
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "docs.run_notebooks", str(notebook.absolute())],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise AssertionError(f"{notebook.name} failed:\n{done.stderr}")
    found: list[list[Output]] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_cells(notebook: Path) -> list[list[Output]]:
    """Run the cells in this process."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_run("".join(cell["source"]), names) for cell in code_cells(notebook)]


def _run(source: str, names: dict[str, Any]) -> list[Output]:
    """What a cell prints, and the value of the expression at its end."""
    body, last, printed = ast.parse(source).body, None, io.StringIO()
    if body and isinstance(body[-1], ast.Expr):
        last = ast.Expression(body.pop().value)  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "<cell>", "exec"), names)  # noqa: S102
        value = None if last is None else eval(compile(last, "<cell>", "eval"), names)  # noqa: S307
    outputs: list[Output] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(text)})
    if value is not None and not source.rstrip().endswith(";"):  # as in Jupyter
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = _lines(value._repr_html_())
        outputs.append(
            {"data": data, "execution_count": None, "metadata": {}, "output_type": "execute_result"}
        )
    return outputs


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Run all notebooks and write their outputs, or print those of one."""
    if len(sys.argv) > 1:
        print(json.dumps(run_cells(Path(sys.argv[1]))))  # noqa: T201
        return
    for path in notebooks():
        notebook, outputs = json.loads(path.read_text("utf-8")), iter(outputs_of(path))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"] = next(outputs)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
