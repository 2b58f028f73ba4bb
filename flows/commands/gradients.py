"""`pvar gradients`: measure the paper's theorem, and the pairs as trained, on a configuration."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption, PresetOption, SetOption
from flows.commands.summary import Figure, FigureValue, known, print_summary

if TYPE_CHECKING:
    from tasks.training.gradient_summary import GradientSummary, Spearman
    from tasks.training.prompt_gradients import PromptGroup

GROUPS = ("low", "middle", "high")
"""Thirds of the prompts by PVar."""


def gradients(
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    model: str | None = None,
    prompts: Annotated[int, Parameter(validator=validators.Number(gte=3))] = 32,
    out: Path = Path("gradients"),
    as_json: JsonOption = False,
) -> None:
    """Measure DPO gradients per prompt, and compare them with PVar.

    Two gradients of each prompt are measured. The one of labels that follow the preference
    probabilities (soft, or drawn in expectation) is bounded, at the starting policy by √PVar times
    β√E‖g‖². The one of the pairs that are trained, with hard labels, is not: how it goes with PVar
    is an observation. By thirds of PVar, signal is the norm of the mean gradient and noise its
    standard error; a ratio of about 1 is what noise alone gives.

    The prompts must be sampled and scored first (`pvar run`, or its first three stages). The cost
    is one forward and backward pass of the whole model per response, and memory for eight times its
    float32 weights.

    ```console
    pvar gradients my.yaml --prompts 64 --out gradients
    ```

    Parameters
    ----------
    preset
        Name of a preset or path of a YAML file.
    set_
        Changes to the preset as key=value.
    model
        Model to measure instead of the starting policy, which stays the reference: the end of a
        training (artifact:train/…, models:/…), another reference, or the folder of a checkpoint
        (all weights, or LoRA adapters). A training's newest checkpoint is in the store, in
        train/DIGEST/checkpoints, until the training ends.
    prompts
        Number of prompts, spread evenly over the ranks of PVar.
    out
        Output folder for the values per prompt (gradients.jsonl) and the figure (gradients.svg).
    as_json
        Print the summary as one JSON object.
    """
    from flows.console import console, show_progress
    from flows.gradient_prompts import gradients_of
    from flows.wiring import connect
    from infra.presets import load_config
    from infra.row_files import write_rows
    from tasks.training.gradient_summary import draw_gradients, summarise_gradients

    config = load_config(preset, set_)
    with show_progress():
        groups = gradients_of(config, connect(), prompts, model)
    found = [gradient for group in groups for gradient in group.prompts]
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "gradients.jsonl", _rows(groups))
    draw_gradients(found, out / "gradients.svg")
    title = f"DPO gradients at {model or config.policy}"
    figures = _figures(summarise_gradients(found)) + _group_figures(groups)
    print_summary(title, figures, as_json=as_json)
    if not as_json:
        console().print(
            f"values per prompt and figure: {out.absolute()}", highlight=False, soft_wrap=True
        )


def _rows(groups: "Sequence[PromptGroup]") -> Iterator[dict[str, object]]:
    for name, group in zip(GROUPS, groups, strict=True):
        for gradient in group.prompts:
            yield {
                "group": name,
                **gradient._asdict(),
                "bound": gradient.bound,
                "tightness": known(gradient.tightness),
                "is_within_bound": gradient.is_within_bound,
            }


def _figures(summary: "GradientSummary") -> list[Figure]:
    names = ("min", "median", "max")
    return [
        Figure("prompts", "Prompts", summary.num_prompts),
        Figure("spearman_soft", "ρ of PVar and soft labels' gradient", _interval(summary.soft)),
        Figure("within_bound", "… within its bound, prompts", summary.num_within_bound),
        Figure(
            "tightness",
            "… as a fraction of its bound",
            dict(zip(names, summary.tightness, strict=True)),
        ),
        Figure("prompts_with_pair", "Prompts with a pair", summary.num_trained),
        Figure(
            "spearman_trained", "ρ of PVar and trained pairs' gradient", _interval(summary.trained)
        ),
        Figure(
            "trained_beyond_bound",
            "… beyond the bound of soft labels, prompts",
            summary.num_trained_beyond_bound,
        ),
        Figure(
            "spearman_policy_pvar", "ρ of PVar and the policy's own", _interval(summary.policy_pvar)
        ),
        Figure("drift", "Mean |policy's own PVar − PVar|", summary.drift),
    ]


def _interval(spearman: "Spearman") -> FigureValue:
    """In JSON null where unknown; the table leaves it out."""
    values = {"rho": spearman.rho, "lower": spearman.lower, "upper": spearman.upper}
    return None if known(spearman.rho) is None else values


def _group_figures(groups: "Sequence[PromptGroup]") -> list[Figure]:
    kinds = {"soft": "Soft labels", "trained": "Trained pairs"}
    measures = {"signal": "signal", "noise": "noise", "ratio": "signal to noise"}
    return [
        Figure(
            f"{kind}_{measure}",
            f"{label}, by thirds of PVar: {meaning}",
            {
                name: getattr(getattr(group, kind), measure)
                for name, group in zip(GROUPS, groups, strict=True)
            },
        )
        for kind, label in kinds.items()
        for measure, meaning in measures.items()
    ]
