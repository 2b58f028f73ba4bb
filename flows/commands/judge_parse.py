"""`pvar judge-parse`: parse the verdicts in a judge's replies."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.commands.benchmark_files import row_file
from pvar.errors import InputError
from pvar.evaluation.arena_hard_judge import parse_verdict
from pvar.evaluation.file_rows import rows_with
from pvar.evaluation.style import Version

app = App(
    name="judge-parse",
    help="Parse the verdicts in a judge's replies.",
    version_flags=(),  # --version is the benchmark's here
)


@app.command
def arena_hard(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)], /, *, version: Version
) -> None:
    """Print one JSON object per row with the parsed score, or null if there is none.

    ```console
    pvar judge-parse arena-hard replies.jsonl --version v2.0
    ```

    Parameters
    ----------
    file
        JSONL or Parquet with a column judgment; `-` reads JSON lines from standard input.
    version
        Rules of v0.1 (2024) or v2.0.
    """
    table = row_file(file)
    for row in rows_with(table, ("judgment",)):
        judgment = row.fields["judgment"]
        if judgment is not None and not isinstance(judgment, str):
            raise InputError(
                f"{table.name}, row {row.number}: judgment is {judgment!r}, and not a text"
            )
        score = parse_verdict(judgment or "", version)
        sys.stdout.write(json.dumps({"score": score}) + "\n")
