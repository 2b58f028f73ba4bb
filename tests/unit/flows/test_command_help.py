"""What the help of each command shows: examples, which the command line takes as they stand."""

import inspect
import re
import shlex
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest

from flows.cli import COMMANDS, GROUPS, app
from flows.commands.rules import retrain_config
from infra.presets import load_config

_EXAMPLES = re.compile(r"```console\n(.*?)```", re.DOTALL)


def commands() -> dict[str, Callable[..., Any]]:
    """Every command by its words, those of groups as well."""
    found = {}
    for name in (*COMMANDS, *GROUPS):
        module = import_module(f"flows.commands.{name.replace('-', '_')}")
        if name in COMMANDS:
            found[name] = getattr(module, name.replace("-", "_"))
            continue
        group = module.app
        if group.default_command is not None:
            found[name] = group.default_command
        for below in group:
            if not below.startswith("-"):
                found[f"{name} {below}"] = group[below].default_command
    return found


COMMANDS_BY_NAME = commands()


@pytest.mark.parametrize("name", COMMANDS_BY_NAME)
def test_its_examples_are_calls_of_the_command(name: str) -> None:
    command = COMMANDS_BY_NAME[name]
    found = _EXAMPLES.search(inspect.getdoc(command) or "")
    assert found is not None, f"pvar {name} --help shows no example"
    lines = found[1].splitlines()
    assert 1 <= len(lines) <= 2
    for line in lines:
        assert len(line) <= 80
        program, *words = shlex.split(line)
        called, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        assert (program, called) == ("pvar", command)
        given = bound.arguments
        config = load_config(None, given.get("set_", ()))
        if "rule" in given:
            retrain_config(config, given["rule"])


def test_every_command_with_a_result_prints_json() -> None:
    without = {
        name
        for name, command in COMMANDS_BY_NAME.items()
        if "as_json" not in inspect.signature(command).parameters
    }
    # It serves; it prints a schema or rows of JSON always; it names the files that it wrote.
    assert without == {"serve", "schema", "judge-parse arena-hard", "init"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: Literal["bash", "zsh", "fish"]) -> None:
    script = app.generate_completion(prog_name="pvar", shell=shell)
    for word in ("judge-agreement", "accept", "preset", "install-completion"):
        assert word in script


def test_bash_completes_an_option(tmp_path: Path) -> None:
    script = tmp_path / "pvar"
    script.write_text(app.generate_completion(prog_name="pvar", shell="bash"))
    code = f". {script}; COMP_WORDS=(pvar run --pre); COMP_CWORD=2; _pvar; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--preset"]
