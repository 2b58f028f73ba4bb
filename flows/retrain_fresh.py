"""The fresh exam of a batch: labelled pairs that nothing is trained on, as a benchmark of its run.

The trained model, the champion and the first model are asked by benchmark `label_agreement`, so the
results are in the report, in MLflow and on the registered version as those of every benchmark. No
gate reads them: an exam that nothing is chosen by does not wear out.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flows.retrain_exam import not_trained_on
from infra.row_files import read_rows
from pvar.benchmark_config import LabelAgreementBenchmark
from pvar.config import PipelineConfig
from pvar.fresh_pairs import FRESH, FreshSplit, split_fresh
from pvar.incoming_rows import BatchRows
from pvar.labelled_pairs import read_held_out_pairs
from pvar.ports import Store
from pvar.retrain_decision import Batch, RetrainConfig
from tasks.retraining.withdrawals import withdrawn_ids


def fresh_splitter(
    config: RetrainConfig, store: Store, scratch: Path
) -> Callable[[BatchRows], FreshSplit] | None:
    """What takes the fresh side out of the rows of a new batch; None if there is none.

    Pairs whose prompts are in the data of earlier batches, or nearly so, are not asked.
    """
    if config.fresh_share is None:
        return None
    untrained = partial(
        not_trained_on, but=None, ingest=config.pipeline.ingest, store=store, scratch=scratch
    )
    return partial(split_fresh, share=config.fresh_share, untrained=untrained)


def with_fresh_exam(config: PipelineConfig, batch: Batch, store: Store) -> PipelineConfig:
    """The configuration with a benchmark of the batch's fresh pairs; as it is, if there are none,
    or all were withdrawn since.

    As prompts of a benchmark they are an exam: training prompts that resemble them are left out.
    """
    if batch.fresh is None or not _has_pairs(batch.fresh, store):
        return config
    benchmark = LabelAgreementBenchmark(
        name=FRESH, pairs=f"{store.uri}/{batch.fresh}", against_first=True
    )
    return config.model_copy(update={"benchmarks": (*config.benchmarks, benchmark)})


def _has_pairs(key: str, store: Store) -> bool:
    """Whether a labelled pair is left that was not withdrawn."""
    withdrawn = withdrawn_ids(store)
    if not withdrawn:
        return True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / key.rpartition("/")[2]
        store.download(key, path)
        return bool(read_held_out_pairs(read_rows(path), FRESH, withdrawn=withdrawn).prompts)
