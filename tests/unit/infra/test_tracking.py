"""What is told of an MLflow that fails."""

from infra.tracking import first_line


def test_a_cause_is_told_whole() -> None:
    # As long as urllib3's for a port that nobody answers; its last words say what is wrong.
    cause = "HTTPConnectionPool(host='127.0.0.1', port=9): " * 9 + "Connection refused"
    assert len(cause) == 432
    assert first_line(Exception(f"{cause}\nmore")) == cause


def test_a_cause_as_long_as_a_page_ends_at_a_word() -> None:
    said = first_line(Exception("<p>word</p> " * 1000))
    assert said.endswith("<p>word</p> …")
    assert len(said) <= 600
