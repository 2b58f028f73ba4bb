"""Tasks of lm-evaluation-harness: find them by name and load their questions.

Tasks come with the harness, or from the user's folder, whose tasks replace tasks of the same name.
Data files of the user's tasks are relative to that folder and inside it, so that its digest covers
them. Questions on the Hugging Face Hub are fetched by `datasets`, which runs no code of theirs.

Code is not run unless it is allowed: neither code that a model wrote (the harness marks such tasks)
nor code of metrics that `evaluate` downloads. Python files of the harness and of the user's folder
do run: they are the tasks.
"""

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pvar.digest import digest
from pvar.errors import ConfigError, InputError

Loaded = dict[str, Any]
"""What the harness's `TaskManager.load` returns: its `tasks` and `groups` by name."""

ALLOW = "set allow_code_execution=true in the benchmark, which runs it without a sandbox"


@dataclass(frozen=True)
class TaskSource:
    """Known tasks, for loading by name."""

    manager: Any
    """A `TaskManager`."""
    allow_code_execution: bool

    def load(self, name: str) -> Loaded:
        """A task, or the tasks of a group or tag, with their questions.

        Raises ConfigError for tasks that cannot be run here, InputError if the questions cannot be
        had.
        """
        with quiet_progress_bars(), self.without_downloaded_code(name):
            try:
                loaded: Loaded = self.manager.load([name])
            except ImportError as error:
                raise ConfigError(
                    f"lm_eval task {name!r} needs a package that is not installed: {error}; "
                    "install it, for example by the task's extra of lm-eval"
                ) from error
            except Exception as error:  # of the task's code, `datasets` and the Hub: no common base
                raise InputError(_no_questions(name, error)) from error
        for task_name, task in loaded["tasks"].items():
            self._refuse_unfit(task_name, task)
        return loaded

    def _refuse_unfit(self, name: str, task: Any) -> None:
        if getattr(task, "UNSAFE_CODE", False) and not self.allow_code_execution:
            raise ConfigError(f"lm_eval task {name!r} executes code that the model wrote; {ALLOW}")
        if getattr(task, "MULTIMODAL", False):
            raise ConfigError(
                f"lm_eval task {name!r} has images or sound, which the backends transformers and "
                "vllm do not read here; choose a task of text only"
            )
        if task.OUTPUT_TYPE == "loglikelihood_rolling":
            raise ConfigError(
                f"lm_eval task {name!r} measures perplexity over documents and has no result per "
                "question, so two models cannot be compared with an interval; choose a task with "
                "answers"
            )

    @contextmanager
    def without_downloaded_code(self, name: str) -> Iterator[None]:
        """Refuse metrics whose code `evaluate` would download, unless that is allowed.

        The refusal is a ConfigError at the end of the block, because the harness catches errors.
        """
        import evaluate

        if self.allow_code_execution:
            yield
            return
        refused: list[str] = []

        def refuse(path: str, *_: object, **__: object) -> None:
            refused.append(path)
            raise PermissionError(f"the code of the metric {path} is not downloaded")

        load, evaluate.load = evaluate.load, refuse
        try:
            yield
        except Exception as error:  # whatever the refusal became on its way out of the harness
            if refused:
                raise ConfigError(_downloads_code(name, refused)) from error
            raise
        finally:
            evaluate.load = load
        if refused:
            raise ConfigError(_downloads_code(name, refused))


def find_tasks(
    names: Sequence[str], folder: Path | None, *, allow_code_execution: bool, scratch: Path
) -> TaskSource:
    """The tasks of these names, from the user's folder and the harness. ConfigError if unknown.

    `folder` is a copy of the user's; what `datasets` makes of its data files is kept in `scratch`.
    """
    from lm_eval.tasks import TaskManager

    own = TaskManager(include_path=str(folder) if folder else None, include_defaults=False)
    index: dict[str, Any] = own.task_index
    if folder is not None:
        _refuse_outside_includes(folder)
    if not all(_is_complete(name, index) for name in names):
        index |= {**_harness_index(), **index}
    if unknown := [name for name in names if name not in index]:
        raise ConfigError(_unknown(unknown, list(index), folder))
    if folder is not None:
        _find_data_files(index, folder, scratch)
    return TaskSource(own, allow_code_execution)


@cache
def _harness_index() -> Mapping[str, Any]:
    """The harness's own tasks: name → entry. Its 15,000 task files take seconds to read."""
    from lm_eval.tasks import TaskManager

    index: Mapping[str, Any] = TaskManager().task_index
    return index


def _is_complete(name: str | None, index: Mapping[str, Any]) -> bool:
    """Whether the index has the name, and for a group all that the group names."""
    if name is None or name not in index:
        return False
    members = (index[name].cfg or {}).get("task") if index[name].kind.name == "GROUP" else ()
    names = [
        each if isinstance(each, str) else each.get("task") or each.get("group")
        for each in members or ()
    ]
    return all(_is_complete(each, index) for each in names)


@contextmanager
def quiet_progress_bars() -> Iterator[None]:
    """No progress bars of libraries unless a person watches; logs are written all the same."""
    if sys.stderr.isatty():
        yield
        return
    with redirect_stderr(io.StringIO()):
        yield


def _unknown(unknown: Sequence[str], known: Sequence[str], folder: Path | None) -> str:
    from difflib import get_close_matches

    what = ", ".join(repr(name) for name in unknown)
    similar = [match for name in unknown for match in get_close_matches(name, known, n=3)]
    hint = f"; similar names: {', '.join(similar)}" if similar else ""
    invalid = "".join(f"; {problem}" for problem in _invalid_files(folder)) if folder else ""
    return (
        f"lm_eval has no task {what}{hint}{invalid}; `lm-eval ls tasks` lists the tasks, and "
        "include_path adds your own"
    )


def _invalid_files(folder: Path) -> Iterator[str]:
    """Task files that the harness leaves out without a word."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(folder.rglob("*.yaml")):
        try:
            load_yaml(path, resolve_func=False)
        except Exception as error:  # noqa: BLE001  YAML's errors and the harness's have no common base
            name = path.relative_to(folder)
            yield f"{name} of include_path is invalid ({_one_line(error)})"


def _refuse_outside_includes(folder: Path) -> None:
    """ConfigError for a task file that includes a file from outside the folder."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(folder.rglob("*.yaml")):
        try:
            content = load_yaml(path, resolve_func=False, recursive=False)
        except Exception:  # noqa: BLE001, S112  reported where a task is missing
            continue
        includes = content.get("include", ())
        for include in [includes] if isinstance(includes, str) else includes:
            if not (path.parent / include).resolve().is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"{path.relative_to(folder)} of include_path includes {include}, which is "
                    "outside that folder, so its content could change unnoticed; copy the file "
                    "into the folder"
                )


def _find_data_files(index: dict[str, Any], folder: Path, scratch: Path) -> None:
    """Let the user's tasks find their data files, which are relative to the folder.

    Each such task is replaced by a file that includes it and has absolute paths. Its Python
    functions are still imported only when the task is loaded.
    """
    for name, entry in list(index.items()):
        path, content = entry.yaml_path, entry.cfg or {}
        if path is None or not path.is_relative_to(folder) or not _has_local_data(content):
            continue
        found = _Finder(folder, path.relative_to(folder).as_posix())
        options = dict(content.get("dataset_kwargs") or {})
        for key in ("data_files", "data_dir"):
            if key in options:
                options[key] = found.inside(options[key])
        location = content.get("dataset_path")
        changes = {
            "dataset_path": found.inside(location) if _is_path(location) else location,
            "dataset_kwargs": {**options, "cache_dir": str(scratch / "datasets")},
        }
        wrapper = scratch / "tasks" / f"{digest([name])}.yaml"
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        wrapper.write_text(yaml.safe_dump({"include": str(path), **changes}), encoding="utf-8")
        index[name] = replace(entry, yaml_path=wrapper, cfg={**content, **changes})


def _has_local_data(content: Mapping[str, Any]) -> bool:
    options = content.get("dataset_kwargs") or {}
    return "data_files" in options or "data_dir" in options or _is_path(content.get("dataset_path"))


def _is_path(location: object) -> bool:
    return isinstance(location, str) and location.startswith((".", "/", "~"))


@dataclass(frozen=True)
class _Finder:
    """Makes the locations of a task file absolute."""

    folder: Path
    task_file: str

    def inside(self, location: Any) -> Any:
        """A location, or lists and mappings of locations. Addresses stay as they are."""
        match location:
            case Mapping():
                return {key: self.inside(value) for key, value in location.items()}
            case list():
                return [self.inside(value) for value in location]
            case str() if "://" in location:
                return location
            case str():
                path = (self.folder / location).resolve()
                if path.is_relative_to(self.folder.resolve()):
                    return str(path)
        raise ConfigError(
            f"{self.task_file} of include_path reads {location}, which is not in that folder, so "
            "its content could change unnoticed; put the file into the folder, and give its path "
            "relative to the folder"
        )


def _downloads_code(name: str, metrics: Sequence[str]) -> str:
    return (
        f"lm_eval task {name!r} downloads and runs the code of {', '.join(sorted(set(metrics)))} "
        f"(a metric of the library evaluate); {ALLOW}"
    )


def _no_questions(name: str, error: Exception) -> str:
    return (
        f"lm_eval task {name!r}: its questions cannot be loaded ({type(error).__name__}: "
        f"{_one_line(error)}); if they are on the Hugging Face Hub, check the network, the data "
        "set's name and your access to it (HF_TOKEN), or run once where the Hub can be reached and "
        "keep its cache (HF_HOME); a task in include_path can read local files instead"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
