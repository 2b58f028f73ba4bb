"""Contrast of every text of the pages, in light and dark mode (WCAG 2.2, 1.4.3)."""

import re
from importlib.resources import files

import pytest

STYLE = (files("tasks.report") / "templates" / "style.css").read_text(encoding="utf-8")
LEAST = 4.5
"""For text of any size."""


def colours(mode: str) -> dict[str, str]:
    """The colours of a mode, by variable. Dark mode changes those of light mode."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", light))
    changed = re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", dark)
    return found | dict(changed) if mode == "dark" else found


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def texts() -> set[tuple[str, str]]:
    """Colour and background of each rule that sets one of them; the others are the page's."""
    found = {("ink", "paper")}
    for body in re.findall(r"\{([^{}]*)\}", STYLE):
        text = re.search(r"(?<![\w-])color: var\(--([\w-]+)\)", body)
        behind = re.search(r"background: var\(--([\w-]+)\)", body)
        if text or (behind and "font" in body):
            found.add((text[1] if text else "ink", behind[1] if behind else "paper"))
    return found


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_can_be_read(mode: str) -> None:
    shown, pairs = colours(mode), texts()
    # Chips of both tones, and the message of a failure, stand on colours of their own.
    assert {("warm", "warm-wash"), ("accent", "accent-wash"), ("ink", "warm-wash")} <= pairs
    assert {
        pair: round(contrast(*(shown[name] for name in pair)), 2)
        for pair in pairs
        if contrast(*(shown[name] for name in pair)) < LEAST
    } == {}


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
