"""`pvar variance`: preference variance of every prompt in a file of rewards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from cyclopts import Parameter

from flows.commands.options import JsonOption
from flows.commands.reward_files import Variances, read_variances
from flows.commands.scale_files import read_scale
from flows.commands.summary import Figure, known, print_summary
from infra.row_files import write_rows
from pvar.errors import InputError
from pvar.variance import ties_at_cut

Floats = npt.NDArray[np.float64]
TOP_SHARE = 0.1
QUANTILES = {
    "min": 0.0,
    "p10": 0.1,
    "p25": 0.25,
    "median": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "max": 1.0,
}


def variance(
    input: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Path | None = None,
    scale: float | None = None,
    scale_from: Path | None = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the preference variance of each prompt from the rewards of its responses.

    ```console
    pvar variance rewards.jsonl --scale 2 --out variance.parquet
    ```

    Parameters
    ----------
    input
        JSONL or Parquet file (.jsonl may be .gz); `-` reads JSON lines from standard input. It has
        one row per response with prompt_id and reward, or one row per prompt with a list: rewards,
        scores, all_rm_scores (SimPO), completions (UltraFeedback) or answers (Nectar). If such a
        row has no prompt_id, a hash of its prompt is its id.
    out
        Output file with prompt_id, num_responses, pvar and stderr: .jsonl, .jsonl.gz or .parquet.
    scale
        Reward scale τ in σ((r_i − r_j)/τ), in units of the rewards (default: 1).
    scale_from
        JSONL or Parquet file of labelled pairs with the columns chosen_reward and rejected_reward,
        on which τ is fitted by maximum likelihood, instead of --scale.
    as_json
        Print the summary as one JSON object.
    """
    if scale is not None and scale_from is not None:
        raise InputError(
            f"--scale is {scale:g} and --scale-from is {scale_from}; give one of the two"
        )
    calibrated = None if scale_from is None else read_scale(scale_from)
    used = calibrated.scale if calibrated else 1.0 if scale is None else scale
    variances = read_variances(input, scale=used)
    if out is not None:
        write_rows(out, _rows(variances))
    figures = _figures(variances, used)
    if calibrated is not None:
        figures += [
            Figure("scale_stderr", "Standard error of τ", calibrated.stderr),
            Figure("scale_pairs", "Labelled pairs for τ", calibrated.num_pairs),
        ]
    print_summary("Preference variance", figures, as_json=as_json)


def _figures(variances: Variances, scale: float) -> list[Figure]:
    pvar = variances.pvar[~np.isnan(variances.pvar)]
    pairs = variances.pairs
    return [
        Figure("prompts", "Prompts", len(variances.pvar)),
        Figure("prompts_with_pvar", "… with two rewards or more", len(pvar)),
        Figure("rewards", "Rewards", variances.num_rewards),
        Figure("rewards_missing", "Rewards missing", variances.num_missing),
        Figure("rows_rejected", "Rows left out", variances.row_counts.rejected),
        Figure("first_problem", "The first of them", variances.first_problem),
        Figure("scale", "Reward scale τ", scale),
        Figure("pvar_mean", "Mean PVar", float(pvar.mean()) if len(pvar) else None),
        Figure("pvar_quantiles", "PVar quantiles", _quantiles(pvar)),
        Figure(
            "saturation_share",
            "Share of pairs with |p − ½| > 0.49",
            pairs.num_saturated / pairs.num_pairs if pairs.num_pairs else None,
        ),
        Figure("ties_at_top_tenth", "Ties where the top tenth ends", _ties(pvar)),
    ]


def _quantiles(pvar: Floats) -> dict[str, float]:
    if not len(pvar):
        return {}
    values = np.quantile(pvar, list(QUANTILES.values())).tolist()
    return dict(zip(QUANTILES, values, strict=True))


def _ties(pvar: Floats) -> dict[str, int]:
    """How many prompts have the PVar of the last one in the top tenth, and how many are in it."""
    if not len(pvar):
        return {}
    ties = ties_at_cut(pvar, max(1, round(TOP_SHARE * len(pvar))))
    return {"tied": ties.num_tied, "taken": ties.num_taken}


def _rows(variances: Variances) -> Iterator[dict[str, object]]:
    table = zip(
        variances.prompt_ids.tolist(),
        variances.num_responses.tolist(),
        variances.pvar.tolist(),
        variances.stderr.tolist(),
        strict=True,
    )
    for prompt_id, num_responses, pvar, stderr in table:
        yield {
            "prompt_id": prompt_id,
            "num_responses": num_responses,
            "pvar": known(pvar),
            "stderr": known(stderr),
        }
