"""A server's message is repeated without the key, addresses, and texts of the question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.judges.redaction import RUN, redact

KEY = "planted-8f1c"
URL = "http://judge.internal:8000/team-7/v1/"
ANSWER = 'The patient, Mrs. Lindqvist, said: "It began on Tuesday\nnight" and left.'


def redacted(message: str, *texts: str, length: int = 300) -> str:
    return redact(message, key=KEY, base_url=URL, texts=texts, length=length)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"Incorrect API key {KEY}.", "Incorrect API key […]."),
        (f"Incorrect API key {KEY.upper()}.", "Incorrect API key […]."),
        ("Incorrect API key provided: sk-pl*******8f1c", "Incorrect API key provided: […]"),
        ("not yours: sk-proj-abcdefgh12", "not yours: […]"),
        ("Authorization: Bearer abc.def", "Authorization: […]"),
        ("see https://help.example/keys for help", "see […] for help"),
        ("judge.internal:8000 said no", "[…] said no"),
        ("no route /team-7/chat/completions", "no route […]/chat/completions"),
    ],
)
def test_keys_and_addresses_are_removed(message: str, expected: str) -> None:
    assert redacted(message) == expected


@pytest.mark.parametrize(
    "quotation",
    [
        ANSWER,
        ANSWER.upper(),
        ANSWER.replace("\n", "\\n").replace('"', '\\"'),  # as JSON inside of the message
        " ".join(ANSWER.split()),
        ANSWER[4:30],
    ],
)
def test_a_quotation_is_removed_however_it_is_written(quotation: str) -> None:
    shown = redacted(f"temperature: refused for '{quotation}' today", ANSWER)

    assert shown.startswith("temperature: refused for '")
    assert shown.endswith("today")
    assert "lindqvist" not in shown.lower()
    assert "tuesday" not in shown.lower()


def test_a_quotation_without_spaces_is_removed() -> None:
    assert redacted("拒绝:病人昨晚去世。", "她说病人昨晚去世了") == "拒绝:[…]。"


def test_a_short_text_is_removed_where_it_stands_alone() -> None:
    shown = redacted("'temper' is refused; temperature and temper_2 are not", "temper", "is")

    assert shown == "'[…]' is refused; temperature and temper_2 are not"


def test_what_is_not_quoted_stays() -> None:
    message = "Unsupported parameter: 'max_completion_tokens' is not supported with this model."

    assert redacted(message, ANSWER, "What is a token?") == message


@given(st.text(min_size=RUN), st.text(), st.text())
def test_no_long_run_of_a_text_is_left(text: str, before: str, after: str) -> None:
    letters = "".join(each for each in text if each.isalnum() and each.isascii())
    shown = redacted(f"{before} {text} {after}", text, length=10_000)

    left = "".join(each for each in shown if each.isalnum())
    own = "".join(each for each in f"{before} {after}" if each.isalnum())
    if len(letters) >= RUN and letters.lower() not in own.lower():
        assert letters.lower() not in left.lower()


def test_a_page_or_a_whole_request_is_a_short_line() -> None:
    page = "<html><style>p {}</style><body><h1>Bad gateway</h1>\n<p>nginx\x00</p></body></html>"
    assert redacted(page) == "Bad gateway nginx"

    # The request is repeated, and what is read of it ends within the text.
    many = [f"word{number:04d}" for number in range(5000)]
    shown = redacted("Bad request: " + " ".join(many), " ".join(many))
    assert shown == "Bad request: […]"
    assert len(redacted("no " * 500)) == 300
