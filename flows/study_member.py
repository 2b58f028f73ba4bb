"""A process that makes part of a study: `python -m flows.study_member RUN PART`.

PART is a training, `CELL/SEED`, or `shared` for what several trainings need. The process reads the
study's record from the store, makes the artifacts that are missing, and ends with 0, or with 1 and
the error as its last line. Its memory is free again at its end. It ends, too, when its parent does.
"""

import sys

from pvar.errors import ConfigError, PvarError
from tasks.engine.child_processes import end_with_parent

SHARED = "shared"
"""The part that several trainings need."""


def make_part(run: str, part: str) -> None:
    """Make the artifacts of one part of the study that are missing."""
    from flows.pipeline import run_node
    from flows.study_record import load_study_record
    from flows.wiring import connect

    wiring = connect()
    record = load_study_record(wiring.store, run)
    if part == SHARED:
        for node, config in record.shared_nodes():
            run_node(node, config, wiring, record.mlflow_run)
        return
    training = next((each for each in record.trainings if each.label == part), None)
    if training is None:
        raise ConfigError(
            f"the study {run} has no training {part!r}; it has "
            f"{', '.join(each.label for each in record.trainings)}"
        )
    config = record.pipeline_of(training)
    for node in record.nodes_of(training).values():
        run_node(node, config, wiring, record.mlflow_run)


def run_member() -> None:
    """Entry point of the process."""
    from flows.console import show_progress

    end_with_parent()
    run, part = sys.argv[1:]
    try:
        with show_progress():
            from prefect import tags

            with tags(run, part):
                make_part(run, part)
    except PvarError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    run_member()
