"""The example project that `pvar init` writes: the files of this folder."""

from importlib.resources import files
from pathlib import Path

from pvar.errors import InputError

WRITTEN_AS = {
    "preset.yaml": "preset.yaml",
    "prompts.jsonl": "prompts.jsonl",
    "README.md": "README.md",
    "compose.yaml": "compose.yaml",
    "Dockerfile": "Dockerfile",
    "env.example": ".env.example",
    "gitignore": ".gitignore",
}
"""File of this folder → its name in the project."""

KEPT = {".git", ".venv"}
"""What an otherwise empty folder may have."""

VERSION = "@VERSION@"
"""Stands for the version of pvar."""


def write_example(folder: Path, version: str) -> list[str]:
    """Write the project into a new or empty folder, and return the names of its files.

    Raises InputError if there is something in the folder, or it cannot be written. No file is ever
    overwritten.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in folder.iterdir() if path.name not in KEPT)
        if found:
            shown = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
            raise InputError(
                f"{folder} is not empty (it has {shown}), and nothing is overwritten; give the "
                "name of a new folder"
            )
        for name, written_as in WRITTEN_AS.items():
            text = (files(__package__) / name).read_text(encoding="utf-8")
            with (folder / written_as).open("x", encoding="utf-8") as file:
                file.write(text.replace(VERSION, version))
    except FileExistsError as error:
        raise InputError(f"{error.filename} is a file; give the name of a new folder") from error
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}); give another folder"
        ) from error
    return list(WRITTEN_AS.values())
