"""What child processes may import, and which of their errors came first."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.engine.child_processes import child_environment, first_cause

HEADER = "Traceback (most recent call last):"
ROOT = Path(__file__).parents[3]
CHAINED = """\
some warning
[rank0]: Traceback (most recent call last):
[rank0]:   File "loader.py", line 1, in load
[rank0]:     raise OSError("no space left")
[rank0]: OSError: no space left
[rank0]: During handling of the above exception, another exception occurred:
[rank0]: Traceback (most recent call last):
[rank0]:   File "worker.py", line 9, in <module>
[rank0]: RuntimeError: training failed
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""


def test_the_first_cause_is_the_end_of_the_first_traceback() -> None:
    assert first_cause(CHAINED) == "OSError: no space left"


def test_an_exception_class_of_a_module_is_named_in_full() -> None:
    text = "Traceback (most recent call last):\n  File\n    x\npvar.errors.StageError: a: b\n"
    assert first_cause(text) == "pvar.errors.StageError: a: b"


def test_any_exception_ends_a_traceback_and_one_with_a_rank_goes_before_logged_ones() -> None:
    logged = f"{HEADER}\n  File\nImportError: no triton\n"
    died = (
        "[rank1]: Traceback (most recent call last):\n[rank1]:   File\n[rank1]: a.b.Gone: x.jinja\n"
    )
    assert first_cause(logged + died) == "a.b.Gone: x.jinja"
    assert first_cause(logged) == "ImportError: no triton"


def test_without_a_traceback_the_first_line_with_an_error_is_the_cause() -> None:
    line = "python: Error while finding module specification for 'tasks.training.worker'"
    assert first_cause(f"hello\n{line}\nmore Errors\n") == line
    assert first_cause("killed\n") is None
    assert first_cause("") is None


def test_modules_in_the_working_folder_shadow_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f":{ROOT}:.")  # an empty entry is the working folder too
    for name in ("tasks", "flows", "infra", "pvar"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    script = "import tasks.engine.stage, flows.cli, infra.store, pvar.config; print('ours')"
    for arguments in (["-c", script], ["-m", "flows.cli", "--version"]):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=child_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
