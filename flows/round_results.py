"""The figures of a round, read from the artifacts of its run."""

from pathlib import Path

from flows.run_record import RunRecord
from flows.wiring import Wiring
from pvar.artifacts import Summary
from pvar.pool_variance import PoolVariance, pool_variance
from pvar.references import Pinned
from pvar.round_rules import RoundResult
from tasks.engine.artifact import Artifact, ArtifactKeys, open_artifact
from tasks.engine.node import Node
from tasks.engine.work_folders import work_folder
from tasks.exam_nodes import DIVERGENCE_FIRST_NODE, FIRST_NODE
from tasks.graph import plan_nodes
from tasks.stages.evaluate import EVALUATE
from tasks.stages.promote import PROMOTE, read_decision
from tasks.stages.reward_columns import read_reward_columns
from tasks.stages.select import SELECT, SelectSpec


def read_round(
    number: int, run: RunRecord, first: PoolVariance | None, wiring: Wiring
) -> RoundResult:
    """The figures of a round whose run succeeded. `first` is the pool of the first round.

    The promote artifact can be older than this run. What it says was promoted is compared with the
    champion now, so that a version which was rolled back does not count as promoted.
    """
    nodes = plan_nodes(run.config)
    with work_folder(wiring.settings.home, "rounds") as scratch:

        def opened(keys: ArtifactKeys) -> Artifact:
            return open_artifact(wiring.store, keys.stage, keys.digest, scratch)

        summaries: dict[str, Summary] = {
            name: opened(nodes[name].keys).manifest.summary if name in nodes else {}
            for name in (SELECT.name, EVALUATE.name, FIRST_NODE, DIVERGENCE_FIRST_NODE)
        }
        decision = read_decision(opened(nodes[PROMOTE.name].keys))
        pool = _pool(nodes[SELECT.name], first, wiring, scratch)
    champion = wiring.registry.champion(decision.model_name)
    is_champion = champion is not None and champion.version == decision.version

    def figure(node: str, name: str) -> float | None:
        value = summaries[node].get(name)
        return float(value) if isinstance(value, int | float) else None

    return RoundResult(
        number=number,
        run=run.run,
        start=Pinned.parse(run.config.policy).location,
        source=Pinned.parse(run.config.ingest.source).location,
        pool=pool,
        num_selected=int(figure(SELECT.name, "num_selected") or 0),
        pvar_mean_selected=figure(SELECT.name, "pvar_mean_selected"),
        win_rate=figure(EVALUATE.name, "win_rate"),
        win_rate_lower=figure(EVALUATE.name, "win_rate_lower"),
        win_rate_upper=figure(EVALUATE.name, "win_rate_upper"),
        first_win_rate=figure(FIRST_NODE, "win_rate"),
        first_win_rate_lower=figure(FIRST_NODE, "win_rate_lower"),
        first_win_rate_upper=figure(FIRST_NODE, "win_rate_upper"),
        ability=figure(EVALUATE.name, "ability"),
        ability_change_since_first=figure(FIRST_NODE, "ability_change"),
        kl_since_first=figure(DIVERGENCE_FIRST_NODE, "kl"),
        gate_passed=decision.passed,
        promoted=decision.promoted and is_champion,
        replaced=decision.promoted and not is_champion,
        version=decision.version,
        seconds=sum(node.seconds or 0.0 for node in run.nodes),
    )


def _pool(select: Node, first: PoolVariance | None, wiring: Wiring, scratch: Path) -> PoolVariance:
    """PVar of the prompts among which the node selects, by the responses that it can use."""
    inputs = {
        name: open_artifact(wiring.store, keys.stage, keys.digest, scratch)
        for name, keys in select.inputs.items()
    }
    spec = select.spec
    assert isinstance(spec, SelectSpec)
    rewards = read_reward_columns(inputs, spec.reward_models, spec.settings)
    rule = spec.settings.combination
    return pool_variance(rewards.matrix, scales=rewards.scales, rule=rule, first=first)
