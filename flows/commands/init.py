"""`pvar init`: write an example project into a new folder."""

from pathlib import Path


def init(folder: Path, /) -> None:
    """Write an example project: a preset with comments, prompts, a README, files for containers.

    The folder must be new or empty. Its example runs on a laptop, with the bundled model, in a few
    minutes; the README has the commands.

    ```console
    pvar init my-project
    ```

    Parameters
    ----------
    folder
        The project's folder.
    """
    import shlex
    from importlib import metadata

    from flows.console import console
    from infra.example import write_example

    names = write_example(folder, metadata.version("pvar"))

    def say(text: str) -> None:
        console().print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"{folder}: {', '.join(names)}")
    say(
        f"next: cd {shlex.quote(str(folder))}; pvar doctor --preset preset.yaml; "
        "pvar run --preset preset.yaml (README.md has more)"
    )
