"""The description of a model's version in MLflow: Markdown for people, made from its tags.

What it was trained on, its results with intervals, the gate, its limits, and how it is loaded. A
figure that was not measured is not in it.
"""

from collections.abc import Iterator, Mapping

PERCENT = 100


def describe_version(
    model_name: str, number: int, artifact: str, tags: Mapping[str, str], task: str | None
) -> str:
    """The description. `task` is that of a pipeline of transformers, if MLflow can load it."""
    return "\n".join(_lines(model_name, number, artifact, tags, task)) + "\n"


def _lines(
    model_name: str, number: int, artifact: str, tags: Mapping[str, str], task: str | None
) -> Iterator[str]:
    gate = tags.get("pvar.gate")
    yield f"**{model_name}, version {number}**" + (f": the gate {gate}." if gate else ".")
    yield from ("", "### Trained on", "", _trained_on(artifact, tags))
    results = list(_results(tags))
    if results:
        yield from ("", "### Results", "", "| figure | value | interval |", "|---|--:|--:|")
        yield from results
        if judged := _judged(tags):
            yield from ("", judged)
    if gate:
        yield from ("", "### Gate", "")
        yield f"{gate.capitalize()}." + (
            f" {tags['pvar.gate_reasons']}." if "pvar.gate_reasons" in tags else ""
        )
        if look := tags.get("pvar.look"):
            yield f"This was {look}."
    yield from ("", "### Limits", "")
    yield from _limits(tags)
    yield from ("", "### Load it", "", *_loading(model_name, number, task))


def _trained_on(artifact: str, tags: Mapping[str, str]) -> str:
    pairs = f"{tags['pvar.num_pairs']} pairs" if "pvar.num_pairs" in tags else "Pairs"
    source = f" of `{tags['pvar.source']}`" if "pvar.source" in tags else ""
    chosen = (
        f", of prompts selected by `{tags['pvar.strategy']}` ({tags.get('pvar.budget', '')})"
        if "pvar.strategy" in tags
        else ""
    )
    method = f", with {tags['pvar.method']}" if "pvar.method" in tags else ""
    start = f", starting from `{_policy(tags)}`" if "pvar.policy" in tags else ""
    return (
        f"{pairs}{source}{chosen}{method}{start}. Its artifact is `{artifact}`; "
        f"`pvar lineage {artifact}` shows everything that it was made from."
    )


def _policy(tags: Mapping[str, str]) -> str:
    """The model that it started from: its digest, or its place, if it was the opponent, too."""
    place, _, digest = tags.get("pvar.opponent", "").rpartition("#")
    return place if place and digest == tags["pvar.policy"] else tags["pvar.policy"]


def _results(tags: Mapping[str, str]) -> Iterator[str]:
    """Rows of the table: every tag that has an interval beside it, and those of the benchmarks."""
    for tag in sorted(tags):
        lower, upper = tags.get(f"{tag}_lower"), tags.get(f"{tag}_upper")
        value = _number(tags[tag])
        if lower is None or upper is None or value is None:
            continue
        name = tag.removeprefix("pvar.")
        is_share = name.rpartition(".")[2] in ("win_rate", "ability", "ability_change")
        shown = [_shown(each, is_share=is_share) for each in (tags[tag], lower, upper)]
        yield f"| {_title(name)} | {shown[0]} | {shown[1]} to {shown[2]} |"


def _title(name: str) -> str:
    where, _, figure = name.rpartition(".")
    title = figure.replace("_", " ")
    if where == "first":
        return f"{title}, against the first model"
    return f"{where}: {title}" if where else title


def _judged(tags: Mapping[str, str]) -> str:
    parts = []
    if "pvar.num_judged" in tags:
        parts.append(f"on {tags['pvar.num_judged']} held-out prompts")
    if "pvar.judge" in tags:
        parts.append(f"judged by `{tags['pvar.judge']}`")
    if "pvar.opponent" in tags:
        parts.append(f"against `{tags['pvar.opponent']}`")
    return f"Measured {', '.join(parts)}." if parts else ""


def _limits(tags: Mapping[str, str]) -> Iterator[str]:
    yield "- The results are of what was held out of its source. Other uses were not measured."
    if note := tags.get("pvar.gate_note"):
        yield f"- {note[0].upper()}{note[1:]}."
    if tags.get("pvar.judge") == "afinn":
        yield (
            "- The judge `afinn` is a sentiment lexicon: it knows words, not what is true or "
            "helpful."
        )
    yield "- License and limits of the model that it started from apply."


def _loading(model_name: str, number: int, task: str | None) -> Iterator[str]:
    reference = f"models:/{model_name}/{number}"
    yield from ("```python", "import mlflow", "", "mlflow.set_tracking_uri(ADDRESS)  # this one")
    if task is None:
        yield f'folder = mlflow.artifacts.download_artifacts("{reference}")'
    else:
        yield f'model = mlflow.transformers.load_model("{reference}")  # {task}'
        yield f'folder = mlflow.artifacts.download_artifacts("{reference}")  # or its files'
    yield "```"


def _shown(text: str, *, is_share: bool) -> str:
    value = _number(text)
    if value is None:
        return "unknown"
    return f"{PERCENT * value:.1f} %" if is_share else f"{value:.4g}"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if value != value else value
