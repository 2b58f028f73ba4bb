"""The card of an exported data set: README.md with the fields that the Hugging Face Hub reads."""

import json
from typing import NamedTuple

from pvar.pair_forms import Trainer

FIELDS = {
    "trl": "`prompt`, `chosen` and `rejected` are lists of messages",
    "openrlhf": "`prompt`, `chosen` and `rejected` are lists of messages",
    "axolotl": "`messages` is the prompt; `chosen` and `rejected` are one message each",
    "llama_factory": "`messages` is the prompt; `chosen` and `rejected` are one message each",
    "plain": "`messages` is the prompt; `chosen` and `rejected` are texts",
}


class ExportFacts(NamedTuple):
    """What a card says of an export."""

    artifact: str
    """`pair/digest`."""
    run: str | None
    """None if the artifact was named, not a run."""
    trainer: Trainer
    file_name: str
    num_pairs: int
    version: str
    """Of pvar."""


def dataset_card(facts: ExportFacts) -> str:
    """The card. The licence is not known, and it says so."""
    of_run = f", of run `{facts.run}`" if facts.run else ""
    return f"""---
license: unknown
tags:
- preference
- dpo
- pvar
configs:
- config_name: default
  data_files:
  - split: train
    path: {json.dumps(facts.file_name)}
---

# {facts.num_pairs} preference pairs

Prompts with a chosen and a rejected response each, for training by preferences (DPO and its kin).
The responses were sampled from a model or are those of the data, and reward models or labels say
which is chosen. The settings of the run have what it was, and how the prompts were selected.

- Artifact `{facts.artifact}`{of_run}, exported by pvar {facts.version} in the form of
  {facts.trainer}.
- {FIELDS[facts.trainer]}.
- `chosen_reward` and `rejected_reward` are rewards, `pvar` is the preference variance of the
  prompt (0 to 0.25), `source` is where the prompt is from, `prompt_id` its id. Empty is unknown.

## Licence

Unknown. That of the prompts is their source's, and the terms of the model that wrote the responses
can bind their use. Neither is recorded in the data: state a licence before you publish them.

## Limits

Chosen is what reward models or labels preferred, not what is true or harmless. Prompts and
responses were not checked for personal data.
"""
