"""How long a study takes, said before it starts, from what earlier trainings took."""

from pydantic import ValidationError

from flows.study_outcomes import mean_seconds
from flows.study_record import FOLDER, StudyRecord
from flows.wiring import Wiring
from pvar.errors import IncompleteError
from tasks.engine.artifact import open_artifact
from tasks.engine.progress_text import duration_text


def estimate_study(record: StudyRecord, wiring: Wiring) -> str:
    """A sentence: the trainings that are missing and their time, measured or as the study expects.

    The measured rate is that of the newest study in the store that trained the same policy: the
    wall time of a training's process, on whatever machine that was.
    """
    missing = sum(not _is_trained(record, row, wiring) for row in range(len(record.trainings)))
    said = f"{missing} of {len(record.trainings)} trainings are to be made"
    if not missing:
        return said
    seconds = _known_rate(record, wiring)
    if seconds is None:
        expected = record.config.expected_cost or "the first will tell how long"
        return f"{said}; no training of this policy was measured here: {expected}"
    total = missing * seconds
    beside = record.config.at_once
    return (
        f"{said}, about {duration_text(seconds)} each by an earlier study: "
        f"{total / 3600:.1f} hours of processes, {duration_text(total / beside)} with {beside} "
        "at once"
    )


def _is_trained(record: StudyRecord, row: int, wiring: Wiring) -> bool:
    *_, last = record.nodes_of(record.trainings[row]).values()
    try:
        open_artifact(wiring.store, last.keys.stage, last.keys.digest, wiring.settings.home)
    except IncompleteError:
        return False
    return True


def _known_rate(record: StudyRecord, wiring: Wiring) -> float | None:
    policies = {config.policy for config in record.pipelines.values()}
    keys = [info.key for info in wiring.store.list(f"{FOLDER}/")]
    records = [key for key in keys if key.endswith(".json") and key.count("/") == 1]
    for key in sorted(records, reverse=True):
        try:
            other = StudyRecord.model_validate_json(wiring.store.read(key))
        except ValidationError:  # of another version
            continue
        same = {config.policy for config in other.pipelines.values()} == policies
        if other.run != record.run and same and (seconds := mean_seconds(other)) is not None:
            return seconds
    return None
