"""The number format in which a model computes, and the meaning of `auto` by hardware.

| hardware                                   | sampling, scoring | training, reference |
|--------------------------------------------|-------------------|---------------------|
| computes bfloat16 natively                 | bfloat16          | bfloat16            |
| older GPU: float16 natively, no bfloat16   | float16           | float32             |
| any other                                  | float32           | float32             |

A CPU without native bfloat16 emulates it, slower than float32. Training in float16 would need loss
scaling, because its range is narrow. `auto` is hashed as the word. The run that begins an artifact
resolves it and records the result in the recipe; later runs on the artifact use that format.
"""

from typing import Literal, NamedTuple

NumberFormat = Literal["float32", "bfloat16", "float16"]
NumberFormatChoice = Literal["auto", "float32", "bfloat16", "float16"]


class Hardware(NamedTuple):
    """The hardware properties that determine the number format."""

    name: str
    """Display name."""
    native: frozenset[NumberFormat]
    """Formats that are faster than float32."""


def resolve(choice: NumberFormatChoice, hardware: Hardware, *, learns: bool) -> NumberFormat:
    """Resolve a choice; `learns` is true for training and its reference log-probabilities."""
    if choice != "auto":
        return choice
    if "bfloat16" in hardware.native:
        return "bfloat16"
    if "float16" in hardware.native and not learns:
        return "float16"
    return "float32"


def explain(hardware: Hardware) -> str:
    """The formats that `auto` gives on the hardware, and why, in one line."""
    sampling, training = (resolve("auto", hardware, learns=learns) for learns in (False, True))
    what: str = sampling
    if sampling != training:
        what = f"{sampling} for sampling and scoring, {training} for training"
    does = "computes" if "bfloat16" in hardware.native else "does not compute"
    return f"{what}: {hardware.name} {does} bfloat16 natively"


def resolved(choice: NumberFormatChoice) -> NumberFormat:
    """The format for an engine; ValueError if `auto` is not resolved."""
    if choice == "auto":
        raise ValueError("the number format is auto; resolve it before a model is loaded")
    return choice
