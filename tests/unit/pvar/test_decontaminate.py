import pytest

from pvar.decontaminate import EvaluationPrompt, decontaminate
from pvar.digest import prompt_id
from pvar.records import Message, Prompt
from pvar.row_counts import RowCounts

TWENTY = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
EVALUATION = [EvaluationPrompt("bench/1", TWENTY), EvaluationPrompt("bench/2", "Tell me a joke!")]


def prompt(*contents) -> Prompt:
    roles = ("user", "assistant") * len(contents)
    messages = tuple(Message(role, text) for role, text in zip(roles, contents, strict=False))
    return Prompt(prompt_id(messages), messages, "train", "test")


def words(start, stop):
    return " ".join(TWENTY.split()[start:stop])


def test_thirteen_shared_words_contaminate_and_twelve_do_not():
    contaminated, clean = prompt(f"Count: {words(1, 14)} end"), prompt(f"Count: {words(1, 13)} end")
    result = decontaminate([contaminated, clean], EVALUATION)
    assert result.prompts == [clean]
    assert result.removed == [(contaminated.prompt_id, "bench/1", words(1, 14))]
    assert result.row_counts == RowCounts(rows_in=2, rows_out=1, rejected={"contaminated": 1})


def test_case_punctuation_and_line_breaks_do_not_hide_an_overlap():
    hidden = prompt(words(0, 13).upper().replace(" ", ",\u2028 "))
    assert decontaminate([hidden], EVALUATION).prompts == []


def test_the_same_words_in_another_order_are_no_overlap():
    reverse = prompt(" ".join(TWENTY.split()[::-1]))
    assert decontaminate([reverse], EVALUATION).prompts == [reverse]


def test_a_short_evaluation_prompt_contaminates_its_equal_and_not_what_contains_it():
    equal, longer = prompt("tell me a joke"), prompt("Tell me a joke about cats")
    assert decontaminate([equal, longer], EVALUATION).prompts == [longer]


def test_every_user_message_counts_and_answers_do_not():
    in_history = prompt("tell me a joke", "A joke.", "Another one")
    in_answer = prompt("Count", TWENTY, "Thanks")
    assert decontaminate([in_history, in_answer], EVALUATION).prompts == [in_answer]


def test_chinese_characters_count_as_words():
    # Fifteen characters without a space: a run of thirteen is shared.
    text = "请用简单的语言解释量子力学原理"
    evaluation = [EvaluationPrompt("zh/1", text)]
    shared, other = prompt(f"好的{text[1:14]}吗"), prompt(f"好的{text[1:13]}吗")
    assert decontaminate([shared, other], evaluation).prompts == [other]


@pytest.mark.parametrize(("ngram_words", "num_kept"), [(4, 0), (6, 1)])
def test_the_length_of_the_ngram_decides(ngram_words, num_kept):
    result = decontaminate([prompt(words(0, 5))], EVALUATION, ngram_words=ngram_words)
    assert len(result.prompts) == num_kept


def test_texts_without_words_neither_contaminate_nor_fail():
    silent = prompt("?!")
    assert decontaminate([silent], [EvaluationPrompt("bench/3", "…")]).prompts == [silent]
