"""The selection certificate: what a study asked, did and found, as JSON and as a page.

It has everything that a reader needs to judge the claim: question, plan, pool, arms, what was held
equal, results with intervals, ability, cost, what would change the answer, and the verdict.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pvar.evaluation.method_verdict import ERROR_RATE, MIN_TRAININGS, MethodClaim
from pvar.evaluation.trainings import MethodDifference
from pvar.study_config import SettingSweep, StudyConfig, cells, variant
from pvar.study_margins import ALL, GROUPS, ArmMargins
from pvar.study_results import ArmRow

FLOOR = 0.01
"""A PVar below this is called low: the responses' rewards hardly differ."""


class Pool(NamedTuple):
    """The distribution of PVar over the prompts that can be selected."""

    num_prompts: int
    """Prompts with a PVar."""
    num_without: int
    quantiles: tuple[float, ...]
    """Minimum, quartiles and maximum; empty without prompts."""
    share_low: float
    """Share of prompts with a PVar below FLOOR; NaN without prompts."""
    mean_by_source: Mapping[str, float] = {}
    """Mean PVar of the prompts of each source."""

    @classmethod
    def of(
        cls, pvar: NDArray[np.float64], *, num_without: int, sources: Sequence[str] = ()
    ) -> "Pool":
        """From the known PVar of each prompt, and the prompt's source, both (P,)."""
        if not pvar.size:
            return cls(0, num_without, (), math.nan)
        quantiles = np.quantile(pvar, [0, 0.25, 0.5, 0.75, 1])
        return cls(
            int(pvar.size),
            num_without,
            tuple(float(each) for each in quantiles),
            float((pvar < FLOOR).mean()),
            {name: float(pvar[np.array(sources) == name].mean()) for name in sorted(set(sources))},
        )


class Certificate(NamedTuple):
    """The results of a study and what they were made with."""

    run: str
    study: StudyConfig
    pool: Pool | None
    rows: Sequence[ArmRow]
    """By the first endpoint, which decides the verdicts."""
    further: Mapping[str, Sequence[ArmRow]]
    """By each further endpoint."""
    seconds: float
    """Wall time of all trainings' processes."""
    failures: Mapping[str, str]
    """Training → error."""
    margins: Sequence[ArmMargins] = ()
    """Margins of held-out pairs; empty where none were measured."""

    def to_json(self) -> dict[str, JsonValue]:
        """As JSON: rates and differences in [−1, 1], NaN as null."""
        pipeline = self.study.pipeline
        return {
            "run": self.run,
            "question": self.study.question,
            "plan": self.study.plan,
            "interim": self.num_missing > 0,
            "verdicts": {row.cell: row.claim.verdict for row in self.rows if row.claim},
            "study": self.study.model_dump(mode="json", exclude={"pipeline"}),
            "policies": self.policies,
            "judge": pipeline.evaluate.judge.model_dump(mode="json"),
            "error_rate": ERROR_RATE,
            "min_trainings": MIN_TRAININGS,
            "pool": _plain(self.pool),
            "arms": [_plain(row) for row in self.rows],
            "further_endpoints": _plain(self.further),
            "held_out_margins": _plain(self.margins),
            "seconds": self.seconds,
            "failures": dict(self.failures),
        }

    @property
    def policies(self) -> list[str]:
        """The starting policies of all arms."""
        variants = (variant(self.study, cell, self.study.seeds[0]) for cell in cells(self.study))
        return list(dict.fromkeys(each.policy for each in variants))

    @property
    def num_missing(self) -> int:
        """Trainings of the plan without a result."""
        planned = len(cells(self.study)) * len(self.study.seeds)
        return planned - sum(row.num_trainings for row in self.rows)

    def to_markdown(self) -> str:
        """As a page."""
        parts = [
            f"# {self.study.question}",
            *([_interim_note(self)] if self.num_missing else []),
            "\n".join(_verdict_lines(self)),
            table(self.rows),
            *(
                f"By {name}, without a verdict:\n\n{table(rows)}"
                for name, rows in self.further.items()
            ),
            *_source_tables(self),
            *([margin_table(self.margins)] if self.margins else []),
            "\n".join(f"- {line}" for line in _made_with(self)),
        ]
        if self.failures:
            failed = [f"- {part}: {error}" for part, error in self.failures.items()]
            parts.append("Trainings that failed:\n\n" + "\n".join(failed))
        return "\n\n".join(parts) + "\n"


def table(rows: Sequence[ArmRow]) -> str:
    """One row per arm as a Markdown table. Every interval is over prompts and trainings, unless
    the line below the table says otherwise."""
    if not rows:
        return "No training has a result."
    lines = [
        "| arm | trainings | win rate | minus control | ability | KL | length | finished "
        "| repeated | pairs seen | of them distinct | steps | tokens | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
    ]
    differences = [row.over_control for row in rows if row.over_control is not None]
    over = (
        "prompts and trainings"
        if differences and all(difference.over_trainings for difference in differences)
        else "prompts only: the spread of trainings is not known"
    )
    judged = [row.win_rate for row in rows]
    said = (
        f"{min(each.num_prompts for each in judged)} of "
        f"{max(each.num_wanted for each in judged)} prompts judged for every training. Intervals "
        f"of differences are over {over}. Ability is the change in the share of right answers, "
        "KL the divergence from the starting policy in nats per answer, length in tokens; seconds "
        "are those of one training alone."
    )
    return "\n".join([*lines, "", said])


def _line(row: ArmRow) -> str:
    figures = row.figures
    cells = (
        row.cell,
        f"{row.num_trainings} of {row.num_planned}",
        _rate(row.win_rate),
        "–" if row.over_control is None else _difference(row.over_control),
        "–" if row.ability_change is None else _difference(row.ability_change),
        _number(figures["kl"], ".2f"),
        _number(figures["mean_length_tokens"], ".0f"),
        _number(figures["ended_share"], ".0%"),
        _number(figures["repetition"], ".1%"),
        _number(figures["num_pairs"], ".0f"),
        _number(figures["num_distinct_pairs"], ".0f"),
        _number(figures["num_steps"], ".0f"),
        _number(figures["num_tokens"], ".0f"),
        _number(figures["seconds"], ".0f"),
    )
    return f"| {' | '.join(cells)} |"


def _source_tables(certificate: Certificate) -> list[str]:
    """The differences from the control by source; nothing where all prompts are of one."""
    of_all = (certificate.rows, *certificate.further.values())
    arms = [row for rows in of_all for row in rows if row.by_source]
    if not arms:
        return []
    pvar = certificate.pool.mean_by_source if certificate.pool else {}
    lines = [
        f"| source | PVar | prompts | {' | '.join(row.cell for row in arms)} |",
        f"|{'---|' * (3 + len(arms))}",
    ]
    for source in sorted({source for row in arms for source in row.by_source}):
        found = [row.by_source.get(source) for row in arms]
        known = [each for each in found if each is not None]
        cells = (
            " ".join(source.split()).replace("|", "\\|"),  # the text of a user's row
            _number(pvar.get(source), ".3f"),
            f"{min(each.num_prompts for each in known)} of "
            f"{max(each.num_wanted for each in known)}",
            *("–" if each is None or not each.num_prompts else _difference(each) for each in found),
        )
        lines.append(f"| {' | '.join(cells)} |")
    said = (
        "Win rate minus control on the held-out prompts of each source that were judged for every "
        "training of both, and the mean PVar of the pool's prompts of that source. Descriptive: "
        "the intervals are those of the table above, without allowance for the number of sources, "
        "and no verdict follows from them."
    )
    return ["\n".join(["By source:", "", *lines, "", said])]


def margin_table(rows: Sequence[ArmMargins]) -> str:
    """The held-out margins at the end of training as a Markdown table."""
    names = (ALL, *GROUPS)
    lines = [
        f"| arm | trainings | {' | '.join(names)} |",
        f"|{'---|' * (2 + len(names))}",
    ]
    for row in rows:
        margins = " | ".join(_margin(row, name) for name in names)
        lines.append(f"| {row.cell} | {row.num_trainings} | {margins} |")
    num_without = max(row.num_without_pvar for row in rows)
    said = (
        "Mean margin (implicit reward) of the held-out pairs at the end of training, with the "
        "range over trainings: of all pairs, and of thirds of them by the PVar of their prompts "
        f"({num_without} prompts without PVar are in no third). The pairs are the same for an arm "
        "and its control, and labelled by the rewards that label the training pairs. Over the "
        "steps: held_out_margins.svg and held_out_margins_by_pvar.svg."
    )
    return "\n".join(["Held-out margins:", "", *lines, "", said])


def _margin(row: ArmMargins, group: str) -> str:
    curve = row.curves.get(group)
    if curve is None:
        return "–"
    return (
        f"{curve.mean[-1]:.3f} ({curve.lowest[-1]:.3f} to {curve.highest[-1]:.3f}), "
        f"{curve.num_pairs} pairs"
    )


def _interim_note(certificate: Certificate) -> str:
    return (
        f"**Interim**: {certificate.num_missing} trainings of the plan have no result yet. "
        "Verdicts count when all of them do: whoever looks often and stops at a good moment claims "
        "more often than the level says."
    )


def _verdict_lines(certificate: Certificate) -> list[str]:
    said = [(row.cell, row.claim) for row in certificate.rows if row.claim is not None]
    if not said:
        return ["No verdict: no arm and its control have a finished training."]
    lines = [
        f"- **{cell}: {_worded(each, certificate.study.delta)}**. {_needs(each, certificate)}"
        for cell, each in said
    ]
    level = said[0][1].confidence
    together = "this claim is" if len(said) == 1 else f"these {len(said)} claims together are"
    return [
        *lines,
        "",
        f"Verdicts are by simultaneous intervals (each {level:.1%}), so that {together} wrong in "
        f"at most {ERROR_RATE:.0%} of studies in which no arm differs.",
    ]


def _worded(said: MethodClaim, delta: float) -> str:
    verdict = said.verdict.replace("δ", f"{100 * delta:g} points")
    return f"{verdict}, {_difference(said.difference)}"


def _needs(said: MethodClaim, certificate: Certificate) -> str:
    """What would change the answer."""
    width = f"{100 * certificate.study.width:g} points"
    if said.difference.spread is None:
        return (
            f"How many trainings an interval of {width} takes is not known: there is one training "
            "an arm, or they do not differ."
        )
    trainings, prompts = said.trainings_needed, said.prompts_needed
    by_trainings = (
        f"{trainings} trainings an arm on these {said.difference.num_prompts} prompts"
        if trainings is not None
        else f"no number of trainings on these {said.difference.num_prompts} prompts"
    )
    by_prompts = (
        f"{prompts} prompts with these trainings"
        if prompts is not None
        else "no number of prompts with these trainings"
    )
    return f"For an interval {width} wide: {by_trainings}, or {by_prompts}."


def _made_with(certificate: Certificate) -> list[str]:
    study = certificate.study
    evaluate, source = study.pipeline.evaluate, study.pipeline.ingest.source
    policies = ", ".join(map(_location, certificate.policies))
    arms = "; ".join(f"{arm.name} ({_settings(arm.settings)})" for arm in study.arms)
    held = study.held_equal.model_dump(exclude_none=True) if study.held_equal else {}
    lines = [
        f"policy {policies}, data {_location(source)}, judge {evaluate.judge.kind}",
        f"arms: {arms}; control {study.control}; seeds {', '.join(map(str, study.seeds))}",
        "" if study.sweep is None else _swept(study.sweep),
        f"compared by {', '.join(study.endpoints)}",
        f"held equal: {_settings(held)}",
        "responses drawn anew for each seed"
        if study.fresh_responses
        else "responses shared by all trainings: the luck of the pool is not in the intervals",
        _pool_line(certificate.pool),
        f"{certificate.seconds / 3600:.2f} hours of processes for the trainings made now",
        f"plan: {study.plan}" if study.plan else "",
    ]
    return [line for line in lines if line]


def _location(reference: str) -> str:
    """A pinned reference without its digest."""
    return reference.partition("#")[0]


def _settings(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "nothing"


def _swept(sweep: SettingSweep) -> str:
    values = ", ".join(map(sweep.label_of, sweep.values))
    return f"sweep of {sweep.key or 'several settings'}: {values}"


def _pool_line(pool: Pool | None) -> str:
    if pool is None or not pool.num_prompts:
        return "pool: no prompt has a PVar"
    low, first, middle, third, high = pool.quantiles
    return (
        f"pool of the first training: {pool.num_prompts} prompts, PVar {low:.3f} to {high:.3f}, "
        f"quartiles {first:.3f}, {middle:.3f}, {third:.3f}; {pool.share_low:.0%} below {FLOOR}"
    )


def _rate(found: MethodDifference) -> str:
    return f"{found.difference:.1%} ({found.ci_lower:.1%} to {found.ci_upper:.1%})"


def _difference(found: MethodDifference) -> str:
    return f"{found.difference:+.1%} ({found.ci_lower:+.1%} to {found.ci_upper:+.1%})"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _plain(value: Any) -> Any:
    """Named tuples as objects, NaN and infinities as None."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
