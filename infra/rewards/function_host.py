"""The process of a reward function: import it from its folder, call it for each line of input.

Run as a script, with the folder and `module:function`. It uses the standard library only: its
imports are the user's. `infra/rewards/function_scorer.py` starts it and describes the lines. What
the function prints goes to standard error.
"""

import importlib
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

LONGEST = 300
"""Most characters of an exception's message."""


class UnfitError(Exception):
    """The function, or what it returned, is not what is documented."""


class RewardFunction:
    """A function of the folder."""

    def __init__(self, folder: Path, name: str) -> None:
        module, _, self.name = name.partition(":")
        sys.path.insert(0, str(folder))
        _forget_modules_named_as_in(folder)
        imported = importlib.import_module(module)
        path = Path(imported.__file__ or "")
        if not path.is_relative_to(folder):
            raise UnfitError(f"module {module} was imported from {path}, not from the folder")
        self.place = path.relative_to(folder).as_posix()
        function = getattr(imported, self.name, None)
        if not callable(function):
            has = "is not a function" if hasattr(imported, self.name) else "does not exist"
            raise UnfitError(f"{self.place}: {self.name} {has}")
        self.function: Callable[..., Any] = function
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is not None and Path(code.co_filename).is_relative_to(folder):
            path = Path(code.co_filename).relative_to(folder)
            self.place = f"{path.as_posix()}, line {code.co_firstlineno}"
        self.wants_answers = self._reads_answers()

    def _reads_answers(self) -> bool:
        if inspect.iscoroutinefunction(self.function):
            raise UnfitError(f"{self.place}: {self.name} is async; make it a plain function")
        signature = inspect.signature(self.function)
        wants_answers = "answers" in signature.parameters
        try:
            signature.bind([], [], **({"answers": []} if wants_answers else {}))
        except TypeError as error:
            raise UnfitError(
                f"{self.place}: {self.name}{signature} cannot be called as "
                f"{self.name}(prompts, responses) or {self.name}(prompts, responses, "
                f"answers=answers): {error}"
            ) from None
        return wants_answers

    def values(self, request: Mapping[str, Any]) -> list[float | None]:
        """The values for a request, checked."""
        responses = request["responses"]
        num_responses = len(responses)
        more = {"answers": request["answers"]} if self.wants_answers else {}
        returned = self.function(request["prompts"], responses, **more)
        is_list = hasattr(returned, "__len__") and hasattr(returned, "__getitem__")
        if not is_list or isinstance(returned, str | bytes | Mapping):
            raise self._unfit(f"returned a {type(returned).__name__}, not a list")
        if len(returned) != num_responses:
            raise self._unfit(f"returned {len(returned)} values for {num_responses} responses")
        return [self._number(value, row) for row, value in enumerate(returned)]

    def _number(self, value: Any, row: int) -> float | None:
        plain = _plain(value)
        if plain is None:
            return None
        if not isinstance(plain, int | float):
            shown = _one_line(repr(value))[:60]
            raise self._unfit(
                f"returned {shown} (a {type(value).__name__}) for response {row}; a value is a "
                "number, or None for a missing reward"
            )
        try:
            return float(plain)
        except OverflowError:
            return float("inf")

    def _unfit(self, message: str) -> UnfitError:
        return UnfitError(f"{self.place}: {self.name} {message}")


def _plain(value: Any) -> Any:
    """A number of NumPy or torch as one of Python."""
    try:
        return value.item()
    except Exception:  # noqa: BLE001  of any library: it is not one number
        return value


def _forget_modules_named_as_in(folder: Path) -> None:
    """Forget modules that were imported before the folder's own of the same name could be."""
    own = {path.stem for path in folder.iterdir() if not path.name.startswith((".", "__"))}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


def _describe(error: BaseException, folder: Path) -> str:
    """One line: the place in the folder's files, the type and the message of an exception."""
    if isinstance(error, UnfitError):
        return _one_line(str(error))
    said = _one_line(f"{type(error).__name__}: {error}")[:LONGEST]
    if isinstance(error, SyntaxError) and error.filename:
        said = _one_line(f"{type(error).__name__}: {error.msg}")[:LONGEST]
        return f"{_relative(error.filename, folder)}, line {error.lineno}: {said}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(folder):
            where = f"{_relative(frame.filename, folder)}, line {frame.lineno}"
            return f"{where}, in {frame.name}: {said}"
    return said


def _relative(name: str, folder: Path) -> str:
    path = Path(name)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _serve(folder: Path, name: str, requests: TextIO, replies: TextIO) -> None:
    """Answer requests until there are no more."""

    def reply(**fields: Any) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    try:
        function = RewardFunction(folder, name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  it is the user's code
        reply(error=_describe(error, folder))
        return
    reply(wants_answers=function.wants_answers)
    for line in requests:
        try:
            values: Sequence[float | None] = function.values(json.loads(line))
        except (Exception, SystemExit) as error:  # noqa: BLE001  it is the user's code
            reply(error=_describe(error, folder))
        else:
            reply(values=values)


def _main() -> None:
    """Serve on standard input and output, which the function does not see."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the process that started it
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    with requests, replies:
        _serve(Path(sys.argv[1]), sys.argv[2], requests, replies)


if __name__ == "__main__":
    _main()
