"""The command line. A command's module is imported when the command is called, so `--help` is fast.

A `PvarError` ends the process with its message, and so does the import of a library that is not
installed. A command returns its exit code (`flows/exit_codes.py`), or None for 0. A traceback
indicates a bug.
"""

import ast
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from cyclopts import App, Argument, CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnknownCommandError, UnusedCliTokensError

from flows.exit_codes import ERROR, MEANINGS, WRONG_CALL, code_of_error
from pvar.errors import PvarError

COMMANDS = (
    "run", "stage", "show", "schema", "report", "gradients", "predict", "history", "rollback",
    "approve", "lineage", "deploy", "serve", "notify", "retrain", "rounds", "compare", "benchmark",
    "gc", "forget", "audit", "backtest", "doctor", "variance", "reliability", "select",
    "judge-agreement", "export", "runs", "diff", "ingest-check", "init",
)  # fmt: skip
"""Each command is a function in a module of the same name, with underscores."""

GROUPS = ("winrate", "judge-parse", "batches", "registry", "queue")
"""Commands with subcommands. Each is an `app` in a module of the same name."""


def make_app(*, with_summaries: bool) -> App:
    """The command line.

    `with_summaries` is for the list of all commands: it takes the summaries from the source
    without importing the modules. The help of a single command is its whole docstring.
    """
    exit_codes = "; ".join(f"{code} {meaning}" for code, meaning in MEANINGS.items())
    app = App(
        name="pvar",
        version=lambda: metadata.version("pvar"),
        help="Retrain language models on the prompts that teach them most.",
        help_epilogue=f"Exit codes: {exit_codes}." if with_summaries else None,
        help_on_error=False,
        suppress_keyboard_interrupt=False,  # `main` says what to do next
    )
    app.register_install_completion_command(
        help="Install completion of commands and options for your shell: bash, zsh or fish."
    )
    for name in (*COMMANDS, *GROUPS):
        module = name.replace("-", "_")
        app.command(
            f"flows.commands.{module}:{'app' if name in GROUPS else module}",
            name=name,
            help=_summary(module) if with_summaries else None,
        )
    return app


def _summary(module: str) -> str:
    """First paragraph of a command's docstring, or the `help` of its app, read from the source."""
    tree = ast.parse((Path(__file__).parent / "commands" / f"{module}.py").read_text("utf-8"))
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) if name == module:
                return (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
            case ast.keyword(arg="help", value=ast.Constant(value=str(text))):
                return text
    raise AssertionError(f"flows/commands/{module}.py has no description of its command")


app = make_app(with_summaries=False)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _wrong_call(error: CycloptsError, arguments: Sequence[str]) -> str:
    """What is wrong with the command line, and where the right one is found."""
    unused = error.unused_tokens or [""]
    match error:
        case UnknownCommandError():
            what = f"unknown command {unused[0]!r}{_nearest(unused[0], error.app)}."
        case UnusedCliTokensError():
            one = "is one argument" if len(unused) == 1 else "are arguments"
            what = f"{' '.join(unused)!r} {one} too many{_nearest(unused[0], error.app)}."
            if any(each.partition("=")[0] in ("--preset", "-p") for each in arguments):
                what += " A preset is given by --preset already: give one of the two."
        case MissingArgumentError(keyword=None, argument=Argument(name=name)) if not unused[0]:
            what = f"{name} is missing."
        case _:
            what = str(error).strip()
    return f"{what} See: {' '.join(['pvar', *(error.command_chain or ()), '--help'])}"


def _nearest(word: str, app: App | None) -> str:
    names = [name for name in app or () if not name.startswith("-")]
    found = get_close_matches(word, names, 1)
    return f" (nearest: {found[0]})" if found else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `pvar` command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    lists_commands = not arguments or arguments[0] in ("--help", "-h")
    try:
        command_line = make_app(with_summaries=True) if lists_commands else app
        command_line(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(_wrong_call(error, arguments), WRONG_CALL)
    except PvarError as error:
        _fail(str(error), code_of_error(error))
    except ImportError as error:
        from flows.extras import explain_import

        if (explained := explain_import(error)) is None:
            raise
        _fail(explained, ERROR)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
