"""Which number format a model computes in, and what `auto` means on which hardware.

| hardware                                   | sampling, scoring | training, reference |
|--------------------------------------------|-------------------|---------------------|
| computes bfloat16 natively                 | bfloat16          | bfloat16            |
| older GPU: float16 natively, no bfloat16   | float16           | float32             |
| any other                                  | float32           | float32             |

A CPU without bfloat16 emulates it and is slower than in float32. float16 has a narrow range, which
training would need loss scaling for. `auto` is hashed as the word. Whoever begins an artifact
resolves it, and the recipe records the result, which all later work on the artifact follows.
"""

from typing import Literal, NamedTuple

NumberFormat = Literal["float32", "bfloat16", "float16"]
NumberFormatChoice = Literal["auto", "float32", "bfloat16", "float16"]


class Hardware(NamedTuple):
    """What decides the number format."""

    name: str
    """As shown to people."""
    native: frozenset[NumberFormat]
    """Formats, besides float32, in which it is faster than in float32."""


def resolve(choice: NumberFormatChoice, hardware: Hardware, *, learns: bool) -> NumberFormat:
    """The format of a choice; `learns` is for training and what is subtracted from it."""
    if choice != "auto":
        return choice
    if "bfloat16" in hardware.native:
        return "bfloat16"
    if "float16" in hardware.native and not learns:
        return "float16"
    return "float32"


def explain(hardware: Hardware) -> str:
    """Which formats `auto` means on the hardware, and why, in one line."""
    sampling, training = (resolve("auto", hardware, learns=learns) for learns in (False, True))
    what: str = sampling
    if sampling != training:
        what = f"{sampling} for sampling and scoring, {training} for training"
    does = "computes" if "bfloat16" in hardware.native else "does not compute"
    return f"{what}: {hardware.name} {does} bfloat16 natively"


def resolved(choice: NumberFormatChoice) -> NumberFormat:
    """The format of settings that an engine is given; ValueError where nobody resolved `auto`."""
    if choice == "auto":
        raise ValueError("the number format is auto; resolve it before a model is loaded")
    return choice
