"""What is to be said about the judge of a benchmark: whether it changed, and since when."""

from pvar.artifacts import Summary
from pvar.judge_config import JudgeConfig
from pvar.ports import Store
from tasks.stages.judge_epoch import FIRST_EPOCH, current_epoch, read_epoch


def epoch_remark(store: Store, judge: JudgeConfig, epoch: int | None) -> str | None:
    """Which results are not comparable with those of this epoch; None if all are."""
    epoch, current = epoch or FIRST_EPOCH, current_epoch(store, judge)
    if epoch < current:
        return (
            f"Not comparable with later results: judged before the judge changed"
            f"{_when(store, judge, epoch + 1)}."
        )
    if epoch > FIRST_EPOCH:
        return (
            f"Epoch {epoch} of the judge: results from before it changed"
            f"{_when(store, judge, epoch)} are not comparable."
        )
    return None


def check_remark(figures: Summary) -> str | None:
    """How the judge compared with its earlier self; `figures` are those of stage judge."""
    num, agreement = figures.get("num_anchors"), figures.get("anchor_agreement")
    if not num or not isinstance(agreement, float):
        note = figures.get("anchor_note")
        return None if note is None else f"The judge was not compared with its earlier self: {note}"
    lower, upper, p_value = (
        figures.get(f"anchor_{name}") for name in ("agreement_lower", "agreement_upper", "p_value")
    )
    return (
        f"The judge agrees with its earlier self on {agreement:.0%} of {num} comparisons "
        f"(95 % interval {lower:.0%} to {upper:.0%}, p = {p_value:.2g})."
    )


def _when(store: Store, judge: JudgeConfig, epoch: int) -> str:
    began = read_epoch(store, judge, epoch)
    return f" on {began.began_at:%Y-%m-%d}" if began else ""
