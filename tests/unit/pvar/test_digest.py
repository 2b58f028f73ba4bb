"""Digests are the same everywhere, and what has no stable form is refused."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from pvar.digest import canonical_json, digest, prompt_id, response_id
from pvar.records import Message


def test_the_canonical_form_is_json_with_sorted_keys_and_no_spaces() -> None:
    value = {"b": [1, 2.5, None, True], "a": "ä\n"}
    assert canonical_json(value) == '{"a":"ä\\n","b":[1,2.5,null,true]}'


def test_a_digest_is_the_beginning_of_the_sha256_of_the_canonical_form() -> None:
    whole = hashlib.sha256(b'{"a":1}').hexdigest()
    assert digest({"a": 1}) == whole[:16]
    assert digest({"a": 1}, length=64) == whole


def test_the_order_of_keys_does_not_count_and_that_of_lists_does() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_neighbouring_fields_do_not_run_together() -> None:
    # A joined text would make ("ab", "c") and ("a", "bc") the same response.
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert response_id("p", 1, "2x") != response_id("p", 12, "x")


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (float("nan"), "value is nan"),
        ({"a": [0, float("inf")]}, r"value\.a\[1\] is inf"),
        ({1: "a"}, "the key 1"),
        ({"a": Path("/tmp")}, r"value\.a is a \w*Path"),
        ({"a": {1, 2}}, r"value\.a is a set"),
        ([b"x"], r"value\[0\] is a bytes"),
    ],
)
def test_what_has_no_stable_form_is_refused_with_its_place(value: object, where: str) -> None:
    with pytest.raises(TypeError, match=where):
        digest(value)  # type: ignore[arg-type]


def test_a_prompt_is_its_roles_and_contents_as_they_are() -> None:
    user = prompt_id([Message("user", "Hello")])
    assert user == prompt_id([Message("user", "Hello")])
    assert user != prompt_id([Message("system", "Hello")])
    assert user != prompt_id([Message("user", "hello")])
    assert user != prompt_id([Message("user", "Hel"), Message("user", "lo")])


def test_another_process_with_another_hash_seed_gives_the_same_digest() -> None:
    code = "from pvar.digest import digest; print(digest({'b': 1, 'a': ['x', 2.5]}))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {digest({"b": 1, "a": ["x", 2.5]})}
