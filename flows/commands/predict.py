"""`pvar predict`: how far PVar is known from the prompt alone, beside sampling fewer responses."""

import json
import math
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption, PresetOption, SetOption
from flows.commands.summary import known

if TYPE_CHECKING:
    from flows.variance_predictions import VariancePredictions
    from pvar.evaluation.paired import Interval, WinRate
    from pvar.prediction import Agreement, GroupVariance, SamplingComparison


def predict(
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    by: str | None = None,
    folds: Annotated[int, Parameter(validator=validators.Number(gte=2, lte=20))] = 10,
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show how far PVar can be predicted from the prompt alone, and from fewer responses.

    A ridge regression predicts the PVar of each training prompt from an embedding of it, the mean
    of the policy's last hidden states over its tokens, and is fitted on other prompts only. The
    prediction, and PVar of k responses, are compared with PVar of the other half of the
    responses: rank correlation and R², with 95 % intervals over prompts, the share of the prompts
    that both select, and what each costs. The measurement is noisy as well, so none reaches 1.

    The prompts must be sampled and scored first (`pvar run`, or its first three stages), at least
    20 with four usable responses.

    ```console
    pvar predict my.yaml --by source
    ```

    Parameters
    ----------
    preset
        Name of a preset or path of a YAML file.
    set_
        Changes to the preset as key=value.
    by
        Field of the source's rows, such as source in UltraFeedback: PVar, its prediction and, where
        the configuration is evaluated, the win rate are also shown by its values, and how far they
        alone predict PVar.
    folds
        Number of parts of the prompts, each predicted by a regression on the others.
    seed
        Seed of the folds, the splits of the responses, and the intervals.
    as_json
        Print one JSON object.
    """
    from flows.console import show_progress
    from flows.variance_predictions import predictions_of
    from flows.wiring import connect
    from infra.presets import load_config

    config = load_config(preset, set_)
    with show_progress():
        found = predictions_of(config, connect(), by=by, num_folds=folds, seed=seed)
    if as_json:
        sys.stdout.write(json.dumps(_to_json(found), ensure_ascii=False, allow_nan=False) + "\n")
        return
    _print_comparison(found, by)
    if by is not None:
        _print_groups(found, by)


def _to_json(found: "VariancePredictions") -> dict[str, object]:
    comparison = found.comparison
    return {
        "prompts": comparison.num_prompts,
        "prompts_left_out": found.num_left_out,
        "top_share": comparison.top_share,
        **_comparison(comparison),
        "prediction_by_group": found.by_group and _agreement(found.by_group.prediction),
        "cost": found.cost._asdict(),
        "groups": {
            name: {
                "prompts": group.num_prompts,
                "pvar_mean": group.pvar_mean,
                "pvar_interval": list(group.pvar_interval),
                **({} if group.comparison is None else _comparison(group.comparison)),
            }
            for name, group in found.groups.items()
        },
        "win_rates": {
            name: {key: known(value) for key, value in rate._asdict().items()}
            for name, rate in found.win_rates.items()
        },
    }


def _comparison(comparison: "SamplingComparison") -> dict[str, object]:
    return {
        "prediction_of_all": _agreement(comparison.prediction_of_all),
        "prediction": _agreement(comparison.prediction),
        "responses": {str(k): _agreement(each) for k, each in comparison.sampling.items()},
    }


def _agreement(agreement: "Agreement") -> dict[str, object]:
    return {
        "spearman": known(agreement.spearman),
        "spearman_interval": [known(end) for end in agreement.spearman_interval],
        "r_squared": known(agreement.r_squared),
        "r_squared_interval": [known(end) for end in agreement.r_squared_interval],
        "overlap": agreement.overlap,
    }


def _print_comparison(found: "VariancePredictions", by: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    comparison, cost = found.comparison, found.cost
    table = Table(
        title=f"Estimates of PVar against half of the responses: {comparison.num_prompts} prompts",
        title_justify="left",
    )
    table.add_column("estimate", no_wrap=True)
    top = f"top {comparison.top_share:.0%}"
    for heading in ("rank correlation", "R²"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in (f"in both {top}", "tokens"):
        table.add_column(heading, justify="right")
    table.add_row("prediction", *_cells(comparison.prediction), "0")
    if found.by_group is not None:
        table.add_row(f"{by} alone", *_cells(found.by_group.prediction), "0")
    for size, agreement in comparison.sampling.items():
        tokens = f"{size * cost.response_tokens:,.0f}"
        table.add_row(f"{size} responses", *_cells(agreement), tokens)
    Console().print(table)
    spearman, r_squared, overlap = _cells(comparison.prediction_of_all)
    Console().print(
        "tokens: generated\n"
        f"prediction against all responses: rank correlation {spearman}, R² {r_squared}, "
        f"in both {top}: {overlap}\n"
        f"its cost: {cost.prompt_tokens:,} tokens of the prompts read in "
        f"{cost.embedding_seconds:.1f} s, regressions fitted in {cost.fitting_seconds:.1f} s\n"
        f"prompts left out, with fewer than four usable responses: {found.num_left_out}",
        highlight=False,
        soft_wrap=True,
    )


def _print_groups(found: "VariancePredictions", by: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"By {by}: rank correlations against half of the responses", title_justify="left"
    )
    table.add_column(by)
    most = max(found.comparison.sampling)
    headings = ["prompts", "mean PVar", "prediction", f"{most} responses"]
    headings += ["judged", "win rate"] if found.win_rates else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for name in sorted({*found.groups, *found.win_rates}):
        cells = _group_cells(found.groups.get(name), most)
        if found.win_rates:
            cells += _win_rate_cells(found.win_rates.get(name))
        table.add_row(name, *cells)
    Console().print(table)


def _group_cells(group: "GroupVariance | None", num_responses: int) -> tuple[str, ...]:
    if group is None:
        return ("–",) * 4
    mean = _with_interval(group.pvar_mean, group.pvar_interval, 3)
    if group.comparison is None:
        return str(group.num_prompts), mean, "–", "–"
    estimates = group.comparison.prediction, group.comparison.sampling[num_responses]
    return str(group.num_prompts), mean, *(_cells(estimate)[0] for estimate in estimates)


def _win_rate_cells(rate: "WinRate | None") -> tuple[str, str]:
    if rate is None or math.isnan(rate.win_rate):
        return "–", "–"
    interval = f"({rate.ci_lower:.0%}, {rate.ci_upper:.0%})"
    return str(rate.num_judged), f"{rate.win_rate:.0%} {interval}"


def _cells(agreement: "Agreement") -> tuple[str, str, str]:
    return (
        _with_interval(agreement.spearman, agreement.spearman_interval, 2),
        _with_interval(agreement.r_squared, agreement.r_squared_interval, 2),
        f"{agreement.overlap:.0%}",
    )


def _with_interval(value: float, interval: "Interval", digits: int) -> str:
    if math.isnan(value):
        return "–"
    lower, upper = interval
    return f"{value:.{digits}f} ({lower:.{digits}f}, {upper:.{digits}f})"
