"""`pvar gradients`: measure the paper's theorem on the prompts of a configuration."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.commands.options import PresetOption, SetOption

if TYPE_CHECKING:
    from tasks.training.prompt_gradients import PromptGradient

COLUMNS = ("pvar", "gradient_norm", "difference_norm", "bound")


def gradients(
    *,
    preset: PresetOption = None,
    set_: SetOption = (),
    prompts: Annotated[int, Parameter(validator=validators.Number(gte=3))] = 32,
    out: Path = Path("gradients"),
) -> None:
    """Measure the starting policy's DPO gradient per prompt, and compare it with PVar.

    The prompts must be sampled and scored first (`pvar run`, or its first three stages). The cost
    is one forward and backward pass of the whole policy per response.

    Parameters
    ----------
    preset
        Name of a preset or path of a YAML file.
    set_
        Changes to the preset as key=value.
    prompts
        Number of prompts, spread evenly over the ranks of PVar.
    out
        Output folder for the table (gradients.csv) and the figure (gradients.svg).
    """
    from flows.console import console, show_progress
    from flows.gradient_prompts import gradients_of
    from flows.wiring import connect
    from infra.presets import load_config
    from tasks.training.prompt_gradients import agreement, draw_gradients

    config = load_config(preset, set_)
    with show_progress():
        found = gradients_of(config, connect(), prompts)
    out.mkdir(parents=True, exist_ok=True)
    _write(found, out / "gradients.csv")
    draw_gradients(found, out / "gradients.svg")
    summary = agreement(found)
    console().print(
        f"{len(found)} prompts: gradient norm against PVar, Spearman's ρ {summary.spearman:.3f} "
        f"({summary.spearman_lower:.3f} to {summary.spearman_upper:.3f}); within the bound: "
        f"{summary.num_within_bound} of {len(found)}",
        highlight=False,
    )
    console().print(f"table and figure: {out.absolute()}", highlight=False, soft_wrap=True)


def _write(found: "Sequence[PromptGradient]", path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt_id", "num_responses", *COLUMNS, "is_within_bound"])
        for each in found:
            figures = [f"{getattr(each, name):.6g}" for name in COLUMNS]
            writer.writerow([each.prompt_id, each.num_responses, *figures, each.is_within_bound])
