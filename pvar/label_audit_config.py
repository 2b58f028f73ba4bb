"""Settings of the label audit: who is asked about labels, and which batches are held for a person.

What is done with them is in `pvar/evaluation/label_audit.py` and `tasks/label_nodes.py`.
"""

from pydantic import Field

from pvar.config_model import ConfigModel


class LabelAuditConfig(ConfigModel):
    """Which models are asked about the labels of the source before anything is trained on them. The
    reward models of `score.reward_models` always are."""

    champion: bool = True
    """Also ask `evaluate.opponent`, which is the champion by default, by its implicit reward
    relative to the first model. Costs a forward pass of both over all labelled answers."""
    max_judged: int = Field(default=100, ge=0)
    """Labelled pairs about which evaluate.judge is asked, too, shared evenly between the sources. 0
    does not ask it. `runtime.judge_max_calls` and `judge_max_usd` hold for these calls alone."""
    annotator_field: str | None = None
    """Field of a row that names who labelled it. Agreement is then also counted by annotator."""
    num_rows: int | None = Field(default=None, ge=1)
    """Only the first rows of the source. Retraining sets it to the new rows of a batch, after which
    those that are replayed follow."""


class HoldConfig(ConfigModel):
    """Which labels disagree so much with the models that their batch waits for a person."""

    level: float = Field(default=0.05, gt=0, lt=1)
    """Probability that a batch is held whose labels are as good as the earlier ones, over all its
    sources, annotators and models. Batches vary: the more so, the larger a drop must be."""
    min_drop: float = Field(default=0.03, ge=0, lt=1)
    """Agreement must be lower than in earlier batches by at least this share, or that much below
    one half for a source or annotator without earlier labels. With many labels a smaller drop is
    significant, too."""
    min_labels: int = Field(default=30, ge=1)
    """Labels that a model has to decide, of a source or annotator now, and before. Smaller groups
    are counted and not compared; one with fewer earlier labels counts as new."""
