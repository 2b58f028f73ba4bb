"""Every error this project raises on purpose, in one tree.

    PvarError                    the message is for the user: what, the values, what to do
    ├── ConfigError              a configuration that cannot run (unknown key, range, combination)
    ├── InputError               a file or row that is not what the command takes
    ├── ModelError               a model that cannot be found, loaded or trusted
    ├── StoreError               the artifact store cannot be reached, read or written
    │   └── NotFoundError        no object under that key
    ├── ArtifactError            an artifact is not what its manifest says
    │   ├── IncompleteError      shards or the manifest are missing: run the stage
    │   └── DamagedError         size or sha256 differ from the manifest
    ├── LeaseError               somebody else holds the work, or took it over
    ├── ScoringError             a reward model cannot give trustworthy scores
    ├── JudgeError               a judge cannot be asked, or its answers cannot be read
    │   └── BudgetError          the budget in calls or money is spent; what is done is kept
    ├── TrackingError            MLflow cannot be reached or refuses
    ├── PromotionError           a promotion cannot be carried out (lost race, no such version)
    └── StageError               a stage failed; the cause is chained

A `PvarError` reaches the terminal as one message without a traceback; anything else is a defect
of ours and keeps its traceback.
"""


class PvarError(Exception):
    """Base of all errors that the user can do something about."""


class ConfigError(PvarError):
    """The configuration cannot run."""


class InputError(PvarError):
    """A file or a row is not what the command takes."""


class ModelError(PvarError):
    """A model cannot be found, loaded or trusted."""


class StoreError(PvarError):
    """The artifact store cannot be reached, read or written."""


class NotFoundError(StoreError):
    """The store has no object under that key."""


class ArtifactError(PvarError):
    """An artifact is not what its manifest says."""


class IncompleteError(ArtifactError):
    """Shards or the manifest are missing."""


class DamagedError(ArtifactError):
    """An artifact's size or sha256 differs from its manifest."""


class LeaseError(PvarError):
    """Somebody else holds the work, or took it over."""


class ScoringError(PvarError):
    """A reward model cannot give trustworthy scores."""


class JudgeError(PvarError):
    """A judge cannot be asked, or its answers cannot be read."""


class BudgetError(JudgeError):
    """The budget in calls or money is spent; what is done is kept."""


class TrackingError(PvarError):
    """MLflow cannot be reached or refuses."""


class PromotionError(PvarError):
    """A promotion cannot be carried out."""


class StageError(PvarError):
    """A stage failed; the cause is chained."""
