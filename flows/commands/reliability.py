"""`pvar reliability`: how many responses PVar needs."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption

if TYPE_CHECKING:
    from pvar.reliability import Reliability


def reliability(
    input: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    scale: float = 1.0,
    top_share: Annotated[float, Parameter(validator=validators.Number(gt=0, lt=1))] = 0.1,
    splits: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 20,
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show how well PVar from few responses agrees with PVar from as many others.

    For K = 2, 3, 4, 6, 8 … as far as the file goes, two disjoint halves of K rewards are drawn of
    each prompt, and their PVars are compared: the rank correlation, and the share of the top
    prompts that both have in common. So rewards of 16 responses say how well 2 to 8 do.

    ```console
    pvar reliability rewards.jsonl --scale 2
    ```

    Parameters
    ----------
    input
        Rewards of the responses, as `pvar variance` reads them.
    scale
        Reward scale τ in σ((r_i − r_j)/τ), in units of the rewards.
    top_share
        Share of the prompts that counts as the top.
    splits
        Number of random splits, over which the figures are means.
    seed
        Seed of the splits.
    as_json
        Print a JSON object per K.
    """
    from flows.commands.reward_files import read_reward_matrix
    from flows.commands.summary import known
    from pvar.errors import InputError
    from pvar.reliability import SIZES, split_half_reliability

    rewards = read_reward_matrix(input)
    most = rewards.shape[1] // 2
    found: list[Reliability] = []
    reason = f"{input}: no prompt has the rewards of four responses, two halves of two"
    for size in (size for size in SIZES if size <= most):
        try:
            found.append(
                split_half_reliability(
                    rewards, size, scale=scale, top_share=top_share, num_splits=splits, seed=seed
                )
            )
        except InputError as error:
            reason = f"{input}: {error}"
            break
    if not found:
        raise InputError(reason)
    if as_json:
        for row in found:
            values = {name: known(value) for name, value in row._asdict().items()}
            sys.stdout.write(json.dumps(values) + "\n")
        return
    _print_table(found, top_share)


def _print_table(rows: "Sequence[Reliability]", top_share: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Reliability of PVar by the number of responses", title_justify="left")
    for heading in ("responses", "prompts", "rank correlation", f"in both top {top_share:.0%}"):
        table.add_column(heading, justify="right")
    for row in rows:
        correlation = "–" if math.isnan(row.spearman) else f"{row.spearman:.2f}"
        table.add_row(
            str(row.num_responses), str(row.num_prompts), correlation, f"{row.overlap:.0%}"
        )
    Console().print(table)
