"""The last lines of `pvar run`: what came out, in a few figures, and where to go on."""

from typing import TYPE_CHECKING

from flows.run_record import RunRecord
from flows.wiring import Wiring
from pvar.artifacts import Summary
from pvar.gate import ABILITY_NOT_MEASURED
from pvar.references import Pinned
from tasks.engine.artifact import open_artifact

if TYPE_CHECKING:
    from rich.console import Console


def describe(record: RunRecord, wiring: Wiring, console: "Console") -> None:
    """Print the result of a run."""
    summaries = {}
    for node in record.nodes:
        stage, _, digest = node.artifact.partition("/")
        artifact = open_artifact(wiring.store, stage, digest, wiring.settings.home)
        summaries[node.name] = artifact.manifest.summary
    result, decision = summaries["evaluate"], summaries["promote"]
    num_reused = sum(node.state == "reused" for node in record.nodes)
    lines = [
        f"run {record.run}: {num_reused} of {len(record.nodes)} artifacts reused",
        f"win rate {_share(result['win_rate'])} "
        f"({_share(result['win_rate_lower'])}–{_share(result['win_rate_upper'])}) on "
        f"{result['num_judged']} of {result['num_wanted']} held-out prompts, against "
        f"{Pinned.parse(record.config.evaluate.opponent).location}",
        f"mean length {result['opponent_mean_length_tokens']:.0f} → "
        f"{result['challenger_mean_length_tokens']:.0f} tokens, ended by themselves "
        f"{_share(result['opponent_ended_share'])} → {_share(result['challenger_ended_share'])}",
        _ability(result),
        f"gate {'passed' if decision['gate_passed'] else 'failed'}: "
        f"{record.config.promote.model_name} version {decision['version']}"
        f" {_fate(record.config.promote.model_name, decision)}",
        f"report: {wiring.store.uri}/runs/{record.run}.html",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _ability(result: Summary) -> str:
    if result["num_ability_questions"] is None:
        return ABILITY_NOT_MEASURED
    return (
        f"ability {_share(result['opponent_ability'])} → {_share(result['ability'])} of "
        f"{result['num_ability_questions']} questions right, change "
        f"{_share(result['ability_change'])} ({_share(result['ability_change_lower'])} to "
        f"{_share(result['ability_change_upper'])})"
    )


def _fate(model_name: str, decision: Summary) -> str:
    if decision["promoted"]:
        return "is the champion"
    if decision["awaiting_approval"]:
        return f"awaits approval: pvar approve {model_name} {decision['version']} --note TEXT"
    return "is registered, not promoted"


def _share(value: float | int | str | bool | None) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else "missing"
