"""Judgments of pairs of answers: what stages evaluate and judge share."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pvar.artifacts import Summary
from pvar.evaluation.alpaca_eval_judge import form_of
from pvar.judge_config import JudgeConfig
from pvar.judging import MeteredJudge
from pvar.judging_result import JudgingResult, served_counts, served_name, served_text
from pvar.number_format import NumberFormat
from pvar.ports import Judge, Ports
from pvar.records import Verdict
from pvar.reward_config import in_format, reward_format
from tasks.engine.tables import JudgedShowing, write_table
from tasks.stages.verdict_cache import VerdictCache

VERDICTS = "verdicts.parquet"
SHOWINGS = "showings.parquet"


def judge_format(judge: JudgeConfig, ports: Ports) -> NumberFormat | None:
    """Number format of a judge that is a reward model."""
    choice = reward_format(judge.reward_model) if judge.kind == "reward_model" else None
    return None if choice is None else ports.number_format(choice, learns=False)


def judge_in_format(judge: JudgeConfig, number_format: NumberFormat | None) -> JudgeConfig:
    """The judge's settings with its number format."""
    if judge.kind != "reward_model":
        return judge
    reward_model = in_format(judge.reward_model, number_format)
    return judge.model_copy(update={"reward_model": reward_model})


def cache_of(judge: Judge, ports: Ports, *, epoch: int = 1) -> VerdictCache | None:
    """The cache of verdicts. What is computed in no time is not worth an object per verdict."""
    return VerdictCache(ports.store, epoch) if isinstance(judge, MeteredJudge) else None


def write_judgments(folder: Path, result: JudgingResult) -> None:
    """Write the tables VERDICTS and SHOWINGS."""
    write_table(folder / VERDICTS, result.verdicts, Verdict)
    write_table(
        folder / SHOWINGS,
        [
            JudgedShowing(pair.prompt_id, *showing)
            for pair in result.pairs
            for showing in pair.showings
        ],
        JudgedShowing,
    )


def judge_figures(showings: Sequence[JudgedShowing]) -> Summary:
    """Consistency, what the servers said they are, and how verdicts were read."""
    return {
        "position_consistency": position_consistency(showings),
        "judge_served": served_text(
            served_counts(
                served_name(each.served_model, each.system_fingerprint) for each in showings
            )
        ),
        "judge_form": form_of(showing.evidence for showing in showings),
    }


def position_consistency(showings: Sequence[JudgedShowing]) -> float | None:
    """Fraction of the pairs judged in both orders whose two verdicts name the same side."""
    straight = [showing for showing in showings if not showing.is_swapped]
    swapped = [showing for showing in showings if showing.is_swapped]
    if len(straight) != len(swapped) or not straight:
        return None
    both = [
        (first.preference, second.preference)
        for first, second in zip(straight, swapped, strict=True)
        if first.preference is not None and second.preference is not None
    ]
    same = [
        (first > 0.5) - (first < 0.5) == (second > 0.5) - (second < 0.5) for first, second in both
    ]
    return fmean(same) if same else None
