"""Every stage reports how far it is while it is slow: here it waits until the line is logged.

The clock stands still but for what a test adds, so a line's figures follow from the test alone.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from infra.engines.fake_sampler import FakeSampler
from infra.judges.fake_judge import FakePairJudge
from infra.store import open_store
from pvar.errors import ModelError
from pvar.judging import Answer, Identity, JudgeBudget
from pvar.ports import SampleRequest
from pvar.records import Comparison, Message, Verdict
from tasks.engine.lease import hold
from tasks.engine.stage import Job, run_stage
from tasks.stages.judge_pairs import judge_pairs
from tasks.stages.verdict_cache import VerdictCache
from tests.artifacts import Replaced
from tests.progress import Watched, watched
from tests.workflow import Workflow, start_workflow

Pause = Callable[[], None]


@pytest.fixture
def watch() -> Iterator[Watched]:
    with watched() as here:
        yield here


@pytest.fixture
def flow(tmp_path: Path) -> Workflow:
    """Prompts are ingested: 21 for training; sampling takes 5 shards of 4 prompts and one of 1."""
    workflow = start_workflow(tmp_path)
    workflow.make("ingest")
    return workflow


@dataclass(frozen=True)
class SlowSampler:
    """Does the next of its pauses before each shard."""

    pauses: Iterator[Pause]

    def sample(self, requests: Sequence[SampleRequest], **options: Any) -> Any:
        next(self.pauses, nothing)()
        return FakeSampler(max_prompt_tokens=99, max_new_tokens=12).sample(requests, **options)

    def close(self) -> None:
        """Nothing to free."""


def nothing() -> None:
    """A shard that takes no time."""


def out_of_luck() -> None:
    raise ModelError("out of luck")


def slow_job(flow: Workflow, watch: Watched, *pauses: Pause, loading: Pause = nothing) -> Job[Any]:
    """Sampling, with a pause before each shard."""

    def load(*_: object) -> SlowSampler:
        loading()
        return SlowSampler(iter(pauses))

    ports = Replaced(flow.wiring, {"sampler": load})
    return replace(flow.job("sample"), ports=ports, progress=watch.progress())


def run(flow: Workflow, job: Job[Any]) -> int:
    """Shards made."""
    node = flow.nodes["sample"]
    return run_stage(node.stage, node.recipe, job).shards_made


def test_a_stage_in_shards_says_how_far_it_is_how_fast_and_how_long_still(
    flow: Workflow, watch: Watched
) -> None:
    root = flow.nodes["sample"].keys.root
    job = slow_job(
        flow,
        watch,
        watch.after(40, f"{root}: 0 of 21 prompts (0 of 6 shards) after 40 s"),
        # 4 prompts in 40 s; 17 more take 170 s.
        watch.after(
            0, "4 of 21 prompts (19 %, 1 of 6 shards), 6.0 prompts/min, about 2 min 50 s left"
        ),
        loading=watch.after(30, f"{root}: loading, 30 s so far"),
    )
    assert run(flow, job) == 6


def test_shards_that_were_complete_before_are_not_speed(flow: Workflow, watch: Watched) -> None:
    with pytest.raises(ModelError):
        run(flow, slow_job(flow, watch, nothing, nothing, out_of_luck))
    job = slow_job(
        flow,
        watch,
        watch.after(60, "8 of 21 prompts (38 %, 2 of 6 shards) after 1 min 0 s"),
        # 4 prompts in 60 s; 9 more take 135 s.
        watch.after(
            0, "12 of 21 prompts (57 %, 3 of 6 shards), 4.0 prompts/min, about 2 min 15 s left"
        ),
    )
    assert run(flow, job) == 4


def test_a_stage_that_waits_for_another_workers_shard_says_so(
    flow: Workflow, watch: Watched
) -> None:
    run(flow, slow_job(flow, watch))
    keys = flow.nodes["sample"].keys
    flow.store.delete(keys.manifest)
    flow.store.delete(keys.record(2))
    lease = hold(flow.store, keys.lease(2), ttl_seconds=60)
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(run, flow, slow_job(flow, watch))
        num = "17 of 21 prompts (80 %, 5 of 6 shards)"
        waiting = f"waiting for other workers' shards (1 of 6): {num} after"
        try:
            watch.lines.wait_for(f"{waiting} 0 s")
            watch.after(90, f"{waiting} 1 min 30 s")()
        finally:
            lease.release()
        assert made.result() == 1


def test_the_thread_ends_with_a_stage_that_raises(flow: Workflow, watch: Watched) -> None:
    with pytest.raises(ModelError, match="out of luck"):
        run(flow, slow_job(flow, watch, out_of_luck))
    assert not [each for each in threading.enumerate() if each.name.startswith("progress ")]


def test_a_stage_that_is_complete_reports_no_progress(flow: Workflow, watch: Watched) -> None:
    flow.make("sample")
    before = len(watch.lines.lines)
    run(flow, slow_job(flow, watch))
    assert watch.lines.lines[before:] == []


def test_ingest_says_how_many_rows_it_has_read(flow: Workflow, watch: Watched) -> None:
    def slowly(reference: str) -> Iterator[Any]:
        for number, row in enumerate(flow.wiring.source_rows(reference)):
            if number == 20:
                watch.after(30, "reading the source: 20 rows, 40 rows/min")()
            yield row

    other = start_workflow(flow.wiring.settings.home / "other")
    node = other.nodes["ingest"]
    ports = Replaced(other.wiring, {"source_rows": slowly})
    job = replace(other.job("ingest"), ports=ports, progress=watch.progress())
    run_stage(node.stage, node.recipe, job)


@dataclass(frozen=True)
class SlowJudge:
    """Does the next of its pauses before each verdict."""

    pauses: Iterator[Pause]

    @property
    def identity(self) -> Identity:
        return {"kind": "slow"}

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return FakePairJudge().judge(comparisons)

    def judge_each(self, comparisons: Iterable[Comparison]) -> Iterator[Answer]:
        for comparison in comparisons:
            next(self.pauses, nothing)()
            yield Answer(comparison, *self.judge([comparison]), evidence=None, usd=0.0)


def test_verdicts_of_a_slow_judge_are_counted_and_kept_ones_are_not_speed(
    watch: Watched, tmp_path: Path
) -> None:
    cache = VerdictCache(open_store(tmp_path.as_uri()))
    pairs = [Comparison(f"p{n}", (Message("user", f"{n}?"),), "a", "b") for n in range(10)]

    def judge(num: int, *pauses: Pause) -> None:
        with watch.progress("evaluate/ab12") as progress:
            judge_pairs(
                SlowJudge(iter(pauses)),
                pairs[:num],
                cache=cache,
                budget=JudgeBudget(),
                min_coverage=1.0,
                progress=progress,
            )

    judge(5)  # both orders: ten verdicts
    judge(
        10,
        watch.after(30, "evaluate/ab12: 10 of 20 verdicts (50 %) after 30 s"),
        # One in 30 s; nine more take 270 s.
        watch.after(0, "11 of 20 verdicts (55 %), 2.0 verdicts/min, about 4 min 30 s left"),
    )
