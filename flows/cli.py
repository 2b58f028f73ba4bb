"""The command line. A command's module is imported when the command is called, so `--help` is fast.

A `PvarError` ends the process with its message and exit code 1, and so does the import of a library
that is not installed. A traceback indicates a bug.
"""

import ast
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from cyclopts import App

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
    app = App(
        name="pvar",
        version=lambda: metadata.version("pvar"),
        help="Retrain language models on the prompts that teach them most.",
        help_on_error=False,
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `pvar` command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    lists_commands = not arguments or arguments[0] in ("--help", "-h")
    try:
        (make_app(with_summaries=True) if lists_commands else app)(arguments)
    except PvarError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except ImportError as error:
        from flows.extras import explain_import

        if (explained := explain_import(error)) is None:
            raise
        print(f"error: {explained}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
