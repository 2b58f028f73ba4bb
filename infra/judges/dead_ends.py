"""Ends of a call that later calls of the same judge may share, explained with what to change."""

from infra.judges.health import DeadEnd
from infra.judges.questions import NO_VERDICT, ONLY_THOUGHT
from infra.judges.refusals import Refusal, what_to_change
from pvar.judging import Identity


def refused(refusal: Refusal, judge: Identity) -> DeadEnd | None:
    """A refusal that is not about one comparison's texts."""
    if refusal.is_of_one_call:
        return None
    said = f": {refusal.words}" if refusal.words else ""
    explanation = (
        f"the judge's server refuses the calls ({refusal.status}{said}); "
        f"{what_to_change(refusal.parameter, judge)}"
    )
    return DeadEnd(refusal.kind, explanation, is_certain=refusal.parameter is not None)


def unread(reason: str | None, judge: Identity) -> DeadEnd | None:
    """A reply without a verdict, if it shows what the model is like."""
    explanation = _unread_by_token(judge) if judge["kind"] == "alpaca_eval" else _unread(judge)
    if reason is None or reason not in explanation:
        return None
    return DeadEnd(
        reason, f"the judge's model {judge['model']!r} {explanation[reason]}", is_certain=False
    )


def _unread_by_token(judge: Identity) -> dict[str, str]:
    return {
        ONLY_THOUGHT: (
            f"thinks before it answers, but kind {judge['kind']} reads the first token; change the "
            "judge's `kind` to arena_hard, or use a model that answers without thinking"
        ),
        NO_VERDICT: (
            f"answers with neither m nor M, the only answers that kind {judge['kind']} reads; it "
            "may think aloud first: change the judge's `kind` to arena_hard, its `model`, or its "
            "`template`"
        ),
    }


def _unread(judge: Identity) -> dict[str, str]:
    return {
        ONLY_THOUGHT: (
            f"thinks until the judge's `max_tokens` ({judge['max_tokens']}) are used up, and gives "
            "no verdict; raise `max_tokens`, or use a model that thinks less"
        ),
    }
