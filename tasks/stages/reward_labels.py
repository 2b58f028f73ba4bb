"""The labels on which a reward model is trained, and those on which it is measured.

Labels are pairs that the data annotates, of this run's source (`prompts`) and of earlier batches
(`earlier`). Of both, prompts that this run holds out for evaluation or that are found in an exam
are left out. A prompt is held out or trained on by a hash of its id (`pvar/reward_training.py`).
"""

from collections.abc import Mapping
from typing import NamedTuple

from pvar.labelled_pairs import is_labelled
from pvar.records import Pair, Prompt
from pvar.reward_training import is_held_out_label
from tasks.engine.artifact import Artifact
from tasks.stages.exclude import excluded_prompts
from tasks.stages.ingest import paired_prompts

EARLIER = "earlier"
"""Input: the artifact of the labels of earlier batches."""
EARLIER_EXCLUSIONS = "earlier-exclusions"
"""Input: which of them are in an exam."""


class Label(NamedTuple):
    """A label, and whether it is of an earlier batch."""

    prompt: Prompt
    is_earlier: bool

    @property
    def pair(self) -> Pair:
        """Its answers; they have no rewards."""
        prompt = self.prompt
        assert prompt.chosen is not None
        assert prompt.rejected is not None
        return Pair(prompt.prompt_id, prompt.messages, prompt.chosen, prompt.rejected, None, None)


class Labels(NamedTuple):
    """All labels that may be used, earlier ones first."""

    training: list[Label]
    held_out: list[Label]

    @property
    def num_new(self) -> int:
        """Labels to train on that are not of an earlier batch."""
        return sum(not label.is_earlier for label in self.training)


def read_labels(inputs: Mapping[str, Artifact], held_out_fraction: float) -> Labels:
    """The labels of the inputs `prompts` and `earlier`; the same label of both counts as earlier.

    If the two have different labels of a prompt, the one of `prompts` replaces the earlier one,
    which may have been corrected by it. Labels of prompts that `prompts` holds out for evaluation
    are left out of `earlier` as well.
    """
    new = {prompt.prompt_id: prompt for prompt in _labelled(inputs, "prompts", "exclusions")}
    examined = {prompt.prompt_id for prompt in paired_prompts(inputs["prompts"], "eval")}
    earlier = [
        prompt
        for prompt in _labelled(inputs, EARLIER, EARLIER_EXCLUSIONS)
        if prompt.prompt_id not in examined
        and _label_of(new.get(prompt.prompt_id, prompt)) == _label_of(prompt)
    ]
    known = {prompt.prompt_id for prompt in earlier}
    added = [prompt for name, prompt in new.items() if name not in known]
    labels = [
        *(Label(prompt, True) for prompt in earlier),
        *(Label(prompt, False) for prompt in added),
    ]
    training: list[Label] = []
    held_out: list[Label] = []
    for label in labels:
        side = is_held_out_label(label.prompt.prompt_id, held_out_fraction)
        (held_out if side else training).append(label)
    return Labels(training, held_out)


def _label_of(prompt: Prompt) -> tuple[str | None, str | None]:
    return prompt.chosen, prompt.rejected


def _labelled(inputs: Mapping[str, Artifact], prompts: str, exclusions: str) -> list[Prompt]:
    """The labelled training prompts of an input, without those of exams; none without the input."""
    if prompts not in inputs:
        return []
    excluded = excluded_prompts(inputs[exclusions]) if exclusions in inputs else frozenset[str]()
    return [
        prompt
        for prompt in paired_prompts(inputs[prompts], "train")
        if is_labelled(prompt) and prompt.prompt_id not in excluded
    ]
