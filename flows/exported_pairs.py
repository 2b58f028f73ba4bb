"""The pairs of a run or artifact, with what is known of their prompts, for other trainers."""

from typing import NamedTuple

from flows.open_inputs import open_inputs
from flows.run_record import RunRecord, find_run, load_run
from flows.wiring import Wiring
from pvar.errors import IncompleteError, InputError
from pvar.pair_forms import PairOrigin
from pvar.records import Pair, Prompt
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.lineage import Lineage, list_artifacts, read_lineage
from tasks.engine.tables import PromptVariance
from tasks.retraining.withdrawals import withdrawn_ids
from tasks.stages.ingest import INGEST, PROMPTS
from tasks.stages.pair import PAIR, PAIRS
from tasks.stages.select import SELECT, VARIANCE

_STAGES = (PAIR.name, SELECT.name, INGEST.name)


class ExportedPairs(NamedTuple):
    """The pairs of one artifact."""

    artifact: str
    run: str | None
    """The run that was named, if one was."""
    pairs: list[Pair]
    origins: dict[str, PairOrigin]
    """By prompt id. Empty if the artifacts that tell are gone."""
    num_withdrawn: int
    """Pairs that are left out, because their prompts are withdrawn (`pvar forget`)."""


def read_exported_pairs(reference: str, wiring: Wiring) -> ExportedPairs:
    """The pairs of an artifact `pair/digest` or of a run, both by their first characters.

    Raises InputError for a reference that does not exist or has no pairs, and IncompleteError if
    the pairs are not made yet.
    """
    graph = read_lineage(wiring.store, list_artifacts(wiring.store, _STAGES, with_shards=False))
    pairs_made = [name for name in graph.names if name.startswith(f"{PAIR.name}/")]
    named = find_run(wiring.store, reference, pairs_made)
    run = None if named in pairs_made else load_run(wiring.store, named)
    artifact = named if run is None else _of_run(run)
    with open_inputs(wiring, {"pairs": _keys(artifact)}) as opened:
        pairs = opened["pairs"].rows(PAIRS, Pair)
    withdrawn = withdrawn_ids(wiring.store)
    kept = [pair for pair in pairs if pair.prompt_id not in withdrawn]
    if not kept:
        raise InputError(
            f"{artifact} has no pairs to export: it has {len(pairs)}, all of withdrawn prompts; "
            "withdraw fewer prompts, or export another run"
            if pairs
            else f"{artifact} has no pairs to export: its stage made none, and said why"
        )
    return ExportedPairs(
        artifact=artifact,
        run=None if run is None else run.run,
        pairs=kept,
        origins=_origins(artifact, graph, wiring),
        num_withdrawn=len(pairs) - len(kept),
    )


def _of_run(record: RunRecord) -> str:
    """The pairs that a run trains on."""
    found = [node.artifact for node in record.nodes if node.name == PAIR.name]
    if not found:
        raise InputError(f"run {record.run} has no node {PAIR.name}: it trains on no pairs")
    return found[0]


def _origins(artifact: str, graph: Lineage, wiring: Wiring) -> dict[str, PairOrigin]:
    """Source and PVar by prompt id."""
    inputs = {link.role: _keys(link.ref) for link in graph.entries[artifact].made_from}
    wanted = {name: keys for name, keys in inputs.items() if name in ("prompts", "selection")}
    try:
        with open_inputs(wiring, wanted) as opened:
            prompts = opened["prompts"].rows(PROMPTS, Prompt)
            measured = opened["selection"].rows(VARIANCE, PromptVariance)
    except IncompleteError:
        return {}
    values = {row.prompt_id: row.pvar for row in measured}
    return {each.prompt_id: PairOrigin(values.get(each.prompt_id), each.source) for each in prompts}


def _keys(artifact: str) -> ArtifactKeys:
    return ArtifactKeys(*artifact.split("/"))
