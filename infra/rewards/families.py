"""Determine the form of a reward model checkpoint, and reject unsupported ones.

The forms are rows of a table, whose patterns are matched against `architectures` of config.json;
the first match is used. Chat template and beginning-of-sequence token are always the checkpoint's
own (`pvar/chat.py`), as in its authors' examples. Code of a checkpoint is never run: important
custom heads are implemented in `heads.py`, others are rejected with advice.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from pvar.errors import ModelError

SUPPORTED = (
    "supported are one-logit AutoModelForSequenceClassification models (such as Skywork-Reward "
    "v1 and v2) and ArmoRM"
)


class Family(NamedTuple):
    """One row of the table."""

    architectures: str
    """Pattern of the architecture's name."""
    examples: str
    head: Literal["one_logit", "gated"] | None
    """How the reward is read; None if the form is not supported."""
    answer_header: str = ""
    """For gated heads: the text between prompt and answer, at which the gate reads the prompt."""
    refusal: str = ""
    """Why the form is not supported, and what to do."""


FAMILIES = (
    Family(
        "LlamaForRewardModelWithGating",
        "ArmoRM-Llama3-8B",
        "gated",
        answer_header="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    Family(
        "Gemma2ForRewardModelWithGating",
        "ArmoRM's recipe on Gemma 2",
        "gated",
        answer_header="<end_of_turn>\n<start_of_turn>model\n",
    ),
    Family(
        "*ForSequenceClassification",
        "Skywork-Reward v1 and v2, FsfairX, GRM, Tulu 3, URM's one-logit base models",
        "one_logit",
    ),
    Family(
        "*ForProcessRewardModel",
        "Qwen2.5-Math-PRM",
        None,
        refusal="is a process reward model: it scores steps, not answers",
    ),
    Family(
        "*ForTokenClassification",
        "Math-Shepherd-style models",
        None,
        refusal="labels every token (as process reward models do) and has no score of an answer",
    ),
    Family(
        "*ForCausalLM",
        "generative reward models, LLM judges, policies",
        None,
        refusal="generates text: as a judge it belongs into evaluation, and a DPO-trained policy "
        "scores by its implicit reward",
    ),
    Family(
        "*ForConditionalGeneration",
        "SteamSHP",
        None,
        refusal="generates its verdict instead of a score",
    ),
    Family(
        "*RewardModel",
        "InternLM2-Reward, Qwen2.5-Math-RM, UltraRM, Eurus-RM",
        None,
        refusal="has a head in custom code, which is not run",
    ),
    Family(
        "*ForScore",
        "PKU-Alignment's beaver models",
        None,
        refusal="has a head in custom code, which is not run",
    ),
)


class CheckpointConfig(BaseModel):
    """The used parts of a checkpoint's config.json."""

    architectures: tuple[str, ...] = ()
    id2label: dict[str, str] = {}
    gating_temperature: float = 10.0
    """Default of ArmoRM."""


def read_checkpoint_config(folder: Path) -> CheckpointConfig:
    """Parse config.json; raises ModelError if it is missing or invalid."""
    path = folder / "config.json"
    try:
        return CheckpointConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(
            f"{path} is not the config.json of a Hugging Face model ({error}); give the folder of "
            "a reward model"
        ) from error


def recognise(folder: Path, config: CheckpointConfig) -> Family:
    """The checkpoint's row of the table; raises ModelError if it is not supported."""
    architecture = config.architectures[0] if config.architectures else "(none named)"
    family = next((row for row in FAMILIES if fnmatchcase(architecture, row.architectures)), None)
    if family is None:
        raise ModelError(
            f"{folder}: the architecture {architecture} is not a supported reward model; "
            f"{SUPPORTED}"
        )
    if family.head is None:
        raise ModelError(f"{folder}: {architecture} {family.refusal}; {SUPPORTED}")
    if family.head == "one_logit" and not _scores_the_last_token(architecture):
        raise ModelError(
            f"{folder}: {architecture} is not a decoder of transformers with a linear score of the "
            f"last token (it is an encoder, or has custom code); {SUPPORTED}"
        )
    return family


def _scores_the_last_token(architecture: str) -> bool:
    import transformers
    from transformers.modeling_layers import GenericForSequenceClassification

    return issubclass(getattr(transformers, architecture, object), GenericForSequenceClassification)
