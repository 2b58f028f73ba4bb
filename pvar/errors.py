"""The tree of all errors that this project raises on purpose.

    PvarError                    the message is for the user: what, the values, what to do
    ├── ConfigError              an invalid configuration (unknown key, range, combination)
    ├── InputError               an invalid input file or row
    │   ├── ColumnError          a file lacks a column: it may be a file of another form
    │   ├── UnreadableRunError   the record of a run was written by another version, or is damaged
    │   └── MissingError         what a run needs is missing where it runs: a key, a package, memory
    ├── ModelError               a model cannot be found, loaded or trusted
    │   └── ChatTemplateError    its chat template refuses a conversation
    ├── StoreError               the artifact store cannot be reached, read or written
    │   └── NotFoundError        no object with this key
    ├── ArtifactError            an artifact does not match its manifest
    │   ├── IncompleteError      shards or the manifest are missing: run the stage
    │   └── DamagedError         size or sha256 differ from the manifest
    ├── LeaseError               another process holds the lease, or took it over
    ├── ScoringError             a reward model cannot give trustworthy scores
    ├── JudgeError               a judge cannot be called, or its replies cannot be parsed
    │   ├── BudgetError          the budget in calls or money is spent; finished work is kept
    │   └── CoverageError        too few verdicts, and judging again would not change that
    ├── TrackingError            MLflow cannot be reached or rejects a request
    ├── PromotionError           a promotion is not possible (stale comparison, no such version)
    │   └── LostRaceError        another promotion came first, in this moment
    ├── UnavailableError         a policy's server, the Hub or a pool's workers do not answer
    └── StageError               a stage failed; the cause is chained
        └── StageCancelledError  a person cancelled or deleted the stage's run

The terminal shows a `PvarError` as one message without a traceback. Any other exception is a bug
in pvar and keeps its traceback.
"""


class PvarError(Exception):
    """Base of all errors that the user can fix."""


class ConfigError(PvarError):
    """The configuration is invalid."""


class InputError(PvarError):
    """An input file or row is invalid."""


class ColumnError(InputError):
    """A file lacks a column."""


class UnreadableRunError(InputError):
    """The record of a run was written by another version, or is damaged."""


class MissingError(InputError):
    """What a run needs is missing where it runs."""


class ModelError(PvarError):
    """A model cannot be found, loaded or trusted."""


class ChatTemplateError(ModelError):
    """A model's chat template refuses a conversation; another one may be accepted."""


class StoreError(PvarError):
    """The artifact store cannot be reached, read or written."""


class NotFoundError(StoreError):
    """The store has no object with this key."""


class ArtifactError(PvarError):
    """An artifact does not match its manifest."""


class IncompleteError(ArtifactError):
    """Shards or the manifest are missing."""


class DamagedError(ArtifactError):
    """An artifact's size or sha256 differs from its manifest."""


class LeaseError(PvarError):
    """Another process holds the lease, or took it over."""


class ScoringError(PvarError):
    """A reward model cannot give trustworthy scores."""


class JudgeError(PvarError):
    """A judge cannot be called, or its replies cannot be parsed."""


class BudgetError(JudgeError):
    """The budget in calls or money is spent; finished work is kept."""


class CoverageError(JudgeError):
    """Too few answers can be judged; the other verdicts would be missing again."""


class TrackingError(PvarError):
    """MLflow cannot be reached or rejects a request."""


class PromotionError(PvarError):
    """A promotion is not possible."""


class LostRaceError(PromotionError):
    """Another promotion came first, in this moment."""


class UnavailableError(PvarError):
    """A policy's server, the Hub or a pool's workers do not answer."""


class StageError(PvarError):
    """A stage failed; the cause is chained."""


class StageCancelledError(StageError):
    """A person cancelled or deleted the stage's run."""
