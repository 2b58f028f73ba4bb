"""A study that is complete already, seen from the store before anything slow is started.

As for runs (`flows/complete_runs.py`): where no Prefect server is configured, a repeat of a study
whose trainings are all there makes nothing and records nothing. Its certificate is shown.
"""

from collections.abc import Mapping
from contextlib import suppress

from pydantic import ValidationError

from flows.complete_runs import MOST_RECORDS
from flows.pinning import pin
from flows.study_outcomes import is_made
from flows.study_record import FOLDER, StudyRecord, load_study_record
from flows.wiring import Wiring
from pvar.config import PipelineConfig
from pvar.study_config import StudyConfig, cells, variant, with_seed

CERTIFICATE = "certificate.md"
"""In the folder of the study in the store, beside `certificate.json`."""


def complete_study(config: StudyConfig, wiring: Wiring) -> str | None:
    """The name of the newest study with these settings; None unless every training of it succeeded
    and all of its artifacts are there. `runtime` and `at_once` may differ."""
    pinned, pipelines = pin_study(config, wiring)
    names = {
        info.key.removeprefix(f"{FOLDER}/").removesuffix(".json")
        for info in wiring.store.list(f"{FOLDER}/")
        if info.key.endswith(".json") and info.key.count("/") == 1
    }
    for name in sorted(names, reverse=True)[:MOST_RECORDS]:
        with suppress(ValidationError):  # of another version
            record = load_study_record(wiring.store, name)
            if _is_of(record, pinned, pipelines) and all(
                each.state == "done" and is_made(record, each, wiring) for each in record.trainings
            ):
                return name
    return None


def pin_study(config: StudyConfig, wiring: Wiring) -> tuple[StudyConfig, dict[str, PipelineConfig]]:
    """The study and the pipeline of each cell, with every reference pinned."""
    # First what the arms have in common, so that a reference is read once and the same for all.
    common = pin(with_seed(config, config.pipeline, config.seeds[0]), wiring)
    pinned = config.model_copy(update={"pipeline": common})
    pipelines = {
        cell.name: pin(variant(pinned, cell, config.seeds[0]), wiring) for cell in cells(pinned)
    }
    return pinned, pipelines


def _is_of(
    record: StudyRecord, pinned: StudyConfig, pipelines: Mapping[str, PipelineConfig]
) -> bool:
    return _settings(record.config, record.pipelines) == _settings(pinned, pipelines)


def _settings(
    study: StudyConfig, pipelines: Mapping[str, PipelineConfig]
) -> tuple[StudyConfig, dict[str, PipelineConfig]]:
    """What the results depend on."""

    def of(pipeline: PipelineConfig) -> PipelineConfig:
        return pipeline.model_copy(update={"runtime": PipelineConfig().runtime})

    alike = {"pipeline": of(study.pipeline), "at_once": 1}
    return study.model_copy(update=alike), {name: of(each) for name, each in pipelines.items()}
