"""The rows in docs/data.md are read as the page says."""

import json
import re
from pathlib import Path

import pytest

from pvar.prompt_rows import parse_prompt
from pvar.records import Message, Prompt
from pvar.source_forms import forms_of

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
RIVER = (Message("user", "Name a river."),)
FORMS = re.findall(r"^\*\*(\w+)\*\*:.*?^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ROWS = [(form, json.loads(line)) for form, lines in FORMS for line in lines.splitlines()]


@pytest.mark.parametrize(("form", "row"), ROWS)
def test_a_row_of_the_page_is_read(form: str, row: dict[str, object]) -> None:
    prompt = parse_prompt(row, "test")
    assert isinstance(prompt, Prompt)
    assert forms_of(row) == [form]
    assert "history" in row or prompt.messages == RIVER
    is_pair = any(name in row for name in ("rejected", "non_preferred_output", "data", "fields"))
    assert (prompt.chosen, prompt.rejected) == (("The Nile.", "No.") if is_pair else (None, None))
    assert len(FORMS) == 9


def test_the_page_names_the_reasons_that_there_are() -> None:
    folder = Path(__file__).parents[2] / "pvar"
    code = "".join(
        (folder / name).read_text(encoding="utf-8")
        for name in ("source_forms.py", "annotation_exports.py", "prompt_rows.py", "row_forms.py")
    )
    reasons = set(re.findall(r'(?:return|AMBIGUOUS =|else) "([a-z]+(?:_[a-z]+)+)"', code))
    assert len(reasons) > 25
    unsupported = {reason for reason in reasons if reason.endswith("_not_supported")}
    assert reasons - unsupported <= set(re.findall(r"`(\w+)`", PAGE))
