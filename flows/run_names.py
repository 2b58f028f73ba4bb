"""Names and tags of Prefect's runs, which say what runs: `answers-challenger`, `preset:demo`.

A name that a person or the pipeline gave a run is kept. Prefect's own names (`dangerous-wyvern`)
are replaced. A person's name of two or three words joined by hyphens looks like those.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from prefect import get_client
from prefect.context import FlowRunContext, TagsContext
from prefect.runtime import flow_run

from pvar.config import PipelineConfig

GENERATED = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+){1,2}")
"""Names that Prefect and the forms of its UI draw."""

KINDS = ("model:", "preset:")
"""Beginnings of the tags."""


def kept_or(name: str, given: str | None) -> str:
    """The name that a run was given, or `name` if that was drawn by Prefect."""
    return given if given and not GENERATED.fullmatch(given) else name


def stage_run_name() -> str:
    """The name of the current run of a stage: its node, or the stage if it makes all of its
    nodes."""
    asked = flow_run.parameters or {}
    return kept_or(asked.get("node") or str(flow_run.flow_name), flow_run.name)


def run_label(config: PipelineConfig, preset: str | None) -> str:
    """What a run is about, in a word: its preset, or the model that it registers."""
    return Path(preset).stem if preset else config.promote.model_name


def tags_of(config: PipelineConfig, preset: str | None) -> tuple[str, ...]:
    """The tags of runs with this configuration."""
    of_preset = (f"preset:{run_label(config, preset)}",) if preset else ()
    return (f"model:{config.promote.model_name}", *of_preset)


def describe_run(name: str, tags: Iterable[str]) -> None:
    """Name the current flow run, unless it was given a name, and give it these tags, in place of
    those of its deployment's own preset and model."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    run = context.flow_run
    others = [tag for tag in run.tags if not tag.startswith(KINDS)]
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, name=kept_or(name, run.name), tags=[*others, *tags])


def describe_alone(tags: Iterable[str]) -> None:
    """Give the current run of a stage these tags, unless it has those of a pipeline."""
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is not None and not any(tag.startswith(KINDS) for tag in run.tags):
        describe_run(run.name, tags)


def current_tags() -> list[str]:
    """The tags of the surrounding `prefect.tags`, for runs that another process makes."""
    return sorted(TagsContext.get().current_tags)
