"""Texts as they are compared."""

import sys

import pytest

from pvar.normalised_text import normalise, plain


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("  Name\ta \n RIVER. ", "name a river."),
        ("Ｎａｍｅ Ⅷ Straße", "name viii strasse"),
        ("\x1c a\x85b\u2003c\u3000", "a b c"),  # of other alphabets and of old devices
        ("a\u200bb", "a\u200bb"),  # has no width, and is no white space
        ("\ud800 x", "\ud800 x"),
        (" \n", ""),
    ],
)
def test_case_width_and_white_space_say_nothing(text: str, normalised: str) -> None:
    assert normalise(text) == normalised == normalise(normalised)


def test_every_kind_of_white_space_is_a_space() -> None:
    spaces = [char for char in map(chr, range(sys.maxunicode + 1)) if char.isspace()]
    assert len(spaces) > 20
    assert normalise("a".join(spaces)) == " ".join("a" * (len(spaces) - 1))


def test_punctuation_within_words_stays() -> None:
    assert plain("“Name 2+2, f(x) and -5!”") == "name 2+2 f(x) and -5"
