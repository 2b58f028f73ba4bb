"""A reward function of the user's, from a folder of theirs, in a process of its own.

The process imports a copy of the folder, whose content is the pinned one, and nothing of it enters
this process: neither its modules, nor `sys.path`, nor what it prints. It is not a sandbox: the code
has the rights of the user.

The lines between the processes are JSON. The first is the function's: {"wants_answers": …} or
{"error": …}. Then to every {"prompts": …, "responses": …, "answers": …} there is one {"values": …}
or {"error": …}.

Missing rewards have a reason: `no_reward` (the function gave None), `not_finite`.
"""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.pinned_folder import copy_pinned_folder
from pvar.errors import ConfigError, ScoringError
from pvar.ports import ScoreRequest
from pvar.records import Score
from pvar.references import Pinned, is_pinned
from pvar.reward_config import PythonReward

HOST = Path(__file__).with_name("function_host.py")

EXIT_SECONDS = 10.0
"""How long an idle process may take to end, for what it does at its exit. Then it is killed."""


@dataclass
class _FunctionProcess:
    """The process in which the function runs."""

    process: "subprocess.Popen[str]"
    wants_answers: bool = False
    is_busy: bool = True
    """Whether the user's code runs: at first that of the import."""

    @classmethod
    def start(cls, folder: Path, function: str) -> "_FunctionProcess":
        """Start the process and import the function. ValueError with what is wrong with it."""
        # Neither this script's folder nor the working folder is searched for modules (-P), and the
        # folder stays as it is (-B).
        command = [sys.executable, "-P", "-B", str(HOST), str(folder.resolve()), function]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        started = cls(process)
        try:
            started.wants_answers = started.read()["wants_answers"]
        except BaseException:  # stopped from outside, too
            started.close()
            raise
        return started

    def ask(self, **request: Any) -> list[float | None]:
        """The values for a request. ValueError with what went wrong."""
        assert self.process.stdin is not None
        self.is_busy = True
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        values: list[float | None] = self.read()["values"]
        return values

    def read(self) -> dict[str, Any]:
        """The next line of the process. ValueError if it is an error."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._ended()
        self.is_busy = False
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply

    def _ended(self) -> ValueError:
        code = self.process.wait()
        if code < 0:
            return ValueError(
                f"its process was killed by signal {-code} (9: the memory may be used up)"
            )
        return ValueError(f"its process ended with exit code {code}, without an answer")

    def close(self) -> None:
        """End the process: an idle one by itself, one that still computes at once."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.is_busy:
            self.process.kill()
        try:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # a thread of the function's, for example
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@dataclass
class FunctionScorer:
    """Scores with a function of the user's."""

    name: str
    location: str
    """The user's folder, for errors."""
    process: _FunctionProcess
    scratch: "tempfile.TemporaryDirectory[str]"
    """Holds the copy of the folder."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in order. ScoringError if the function fails."""
        if not requests:
            return []
        if self.process.wants_answers and any(each.answers is None for each in requests):
            raise ConfigError(answers_unknown(self.name))
        try:
            values = self.process.ask(
                prompts=[[message._asdict() for message in each.messages] for each in requests],
                responses=[each.response for each in requests],
                answers=[list(each.answers or ()) for each in requests],
            )
        except ValueError as error:
            raise ScoringError(
                f"reward model {self.name!r}: {error}; correct the function in {self.location}, "
                "and let it return None for a response that it has no reward for"
            ) from None
        return [_score(request, value) for request, value in zip(requests, values, strict=True)]

    def close(self) -> None:
        """End the process, and remove the copy of the folder."""
        self.process.close()
        self.scratch.cleanup()


def _score(request: ScoreRequest, value: float | None) -> Score:
    if value is None:
        return Score(request.prompt_id, request.response_id, None, "no_reward")
    if not math.isfinite(value):
        return Score(request.prompt_id, request.response_id, None, "not_finite")
    return Score(request.prompt_id, request.response_id, value)


def open_function(settings: PythonReward) -> FunctionScorer:
    """Import the function from a copy of its pinned folder.

    Raises InputError if the folder is not as it was pinned, ConfigError if the function cannot be
    imported.
    """
    scratch = tempfile.TemporaryDirectory(prefix="pvar-reward-")
    try:
        folder = copy_pinned_folder(settings.folder, Path(scratch.name))
        location = Pinned.parse(settings.folder).location
        process = _start(settings, folder, location)
    except BaseException:  # stopped from outside, too
        scratch.cleanup()
        raise
    return FunctionScorer(settings.name, location, process, scratch)


def refuse_unusable_function(settings: PythonReward, *, is_judge: bool) -> None:
    """Raise ConfigError if the function cannot be imported here, which this tries."""
    refuse_missing_module(settings)
    folder = _location(settings)
    if not folder.is_dir():
        return
    process = _start(settings, folder, str(folder))
    process.close()
    if is_judge and process.wants_answers:
        raise ConfigError(answers_unknown(settings.name))


def refuse_missing_module(settings: PythonReward) -> None:
    """Raise ConfigError if the folder has no file of the module. Nothing is executed.

    A folder that is missing is reported as all references are (`infra/pinned_folder.py`).
    """
    folder, module = _location(settings), settings.function.partition(":")[0]
    if not folder.is_dir():
        return
    path = folder.joinpath(*module.split("."))
    if not (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()):
        found = sorted(each.stem for each in folder.glob("*.py"))
        raise ConfigError(
            f"reward model {settings.name!r}: {folder} has no {'/'.join(module.split('.'))}.py; "
            f"correct the module in {settings.function} (found: {', '.join(found) or 'none'})"
        )
    _refuse_names_of_the_library(settings.name, folder)


def _refuse_names_of_the_library(name: str, folder: Path) -> None:
    """Raise ConfigError for a file that Python, or any package, would take for its own."""
    for path in sorted(folder.iterdir()):
        is_module = path.suffix == ".py" or (path / "__init__.py").is_file()
        if is_module and path.stem in sys.stdlib_module_names:
            raise ConfigError(
                f"reward model {name!r}: {path} has the name of a module of Python's standard "
                "library; rename it"
            )


def answers_unknown(name: str) -> str:
    """The error for a judge whose function wants answers."""
    return (
        f"reward model {name!r}: its function has the parameter answers, but a judge is not given "
        "the answers of the data; use it as a reward model, or give the judge another function"
    )


def _start(settings: PythonReward, folder: Path, location: str) -> _FunctionProcess:
    _refuse_names_of_the_library(settings.name, folder)
    try:
        return _FunctionProcess.start(folder, settings.function)
    except ValueError as error:
        raise ConfigError(
            f"reward model {settings.name!r}: {settings.function} cannot be used: {error}; correct "
            f"it in {location}, or install what it imports where stage score runs"
        ) from None


def _location(settings: PythonReward) -> Path:
    folder = settings.folder
    location = Pinned.parse(folder).location if is_pinned(folder) else folder
    return Path(location).expanduser().absolute()
