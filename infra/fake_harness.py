"""A made-up lm-evaluation-harness: results from a hash, for trying out the workflow and for tests.

Any task name is known. A question is answered correctly or not by a hash of the policy, the task
and the question, six times in ten.
"""

from dataclasses import dataclass
from statistics import fmean

from pvar.digest import digest
from pvar.lm_eval_records import HarnessResult, LmEvalAggregate, LmEvalSample

NUM_QUESTIONS = 20
CORRECT_SHARE = 0.6
METRIC, FILTER, VERSION = "acc", "none", "fake"


@dataclass(frozen=True)
class FakeHarness:
    """A policy, known by its digest, under the made-up harness."""

    policy: str
    limit: int | None

    def run(self, name: str) -> HarnessResult:
        """The made-up results of a task."""
        samples = tuple(
            LmEvalSample(
                name=name,
                task=name,
                doc_id=row,
                metric=METRIC,
                filter=FILTER,
                value=float(self._is_correct(name, row)),
                question_hash=digest([name, row]),
            )
            for row in range(min(self.limit or NUM_QUESTIONS, NUM_QUESTIONS))
        )
        aggregate = LmEvalAggregate(
            name=name,
            task=name,
            is_group=False,
            metric=METRIC,
            filter=FILTER,
            value=fmean(sample.value or 0.0 for sample in samples),
            stderr=None,
            higher_is_better=True,
            num_questions=len(samples),
            num_fewshot=0,
            task_version=VERSION,
            harness_version=VERSION,
        )
        return HarnessResult(len(samples), samples, (aggregate,))

    def close(self) -> None:
        """Do nothing: nothing was loaded."""

    def _is_correct(self, name: str, row: int) -> bool:
        return int(digest([self.policy, name, row], length=8), 16) / 2**32 < CORRECT_SHARE
