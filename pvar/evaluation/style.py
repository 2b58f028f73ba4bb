"""Style of answers for Arena-Hard's style control: length, headers, lists and bold text.

A style feature compares the model's answer with the baseline's. With counts m and b and densities
d = count / (tokens + 1):

    v0.1   tokens, headers, lists, bolds: (m − b) / (m + b + 1)
    v2.0   tokens: (m − b) / (m + b);  the others: (d_m − d_b) / (d_m + d_b + 1)

Source: lmarena/arena-hard-auto, utils/add_markdown_info.py (counting), utils_math.py at d99b139
(v0.1) and show_result.py at 196f6b8 (v2.0). Tokens are those of gpt-4o's tokenizer there; they are
given, not counted here.
"""

import re
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Version = Literal["v0.1", "v2.0"]
Control = Literal["length", "markdown"]

CONTROLLED_COLUMNS: dict[Control, tuple[int, ...]] = {"length": (0,), "markdown": (1, 2, 3)}
"""Which features each kind of control takes, by their position in `StyleCounts`."""

_CODE = re.compile(r"```([^`]*)```")
_HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
_ORDERED = re.compile(r"^\s*\d+\.\s", re.MULTILINE)
_UNORDERED = re.compile(r"^\s*[-*+]\s", re.MULTILINE)
_STARS = re.compile(r"\*\*[^*\n]+\*\*")
_UNDERSCORES = re.compile(r"__[^_\n]+__")


class StyleCounts(NamedTuple):
    """Counts of an answer's style elements."""

    tokens: int
    headers: int
    lists: int
    bolds: int


def count_style(answer: str, *, num_tokens: int) -> StyleCounts:
    """Count an answer's markdown outside its code blocks."""
    text = answer
    # Every occurrence of a code block's text goes, the fences stay: the published counts do this.
    for code in _CODE.findall(answer):
        text = text.replace(code, "")
    return StyleCounts(
        tokens=num_tokens,
        headers=len(_HEADER.findall(text)),
        lists=len(_ORDERED.findall(text)) + len(_UNORDERED.findall(text)),
        bolds=len(_STARS.findall(text)) + len(_UNDERSCORES.findall(text)),
    )


def style_differences(model: Floats, baseline: Floats, version: Version) -> Floats:
    """Features of model against baseline, shape (num_games, 4); both are rows of `StyleCounts`."""
    if version == "v0.1":
        return (model - baseline) / (model + baseline + 1)
    tokens, baseline_tokens = model[:, :1], baseline[:, :1]
    total = tokens + baseline_tokens
    length = np.divide(tokens - baseline_tokens, total, out=np.zeros_like(total), where=total > 0)
    density, baseline_density = (
        counts[:, 1:] / (counts[:, :1] + 1) for counts in (model, baseline)
    )
    markdown = (density - baseline_density) / (density + baseline_density + 1)
    return np.concatenate([length, markdown], axis=1)


def standardise(features: Floats, weights: Floats, *, ddof: int) -> Floats:
    """Features with weighted mean 0 and variance 1; a constant feature becomes 0.

    A weight counts rows, so the variance divides by Σ weight − `ddof`.
    """
    total = weights.sum()
    centred = features - weights @ features / total
    spread = np.sqrt(weights @ centred**2 / max(total - ddof, 1))
    scaled: Floats = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-12)
    return scaled
