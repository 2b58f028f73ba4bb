"""Verdicts are found again by content alone, and only verdicts are kept."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from infra.store import open_store
from pvar.judging import Identity
from pvar.ports import Store
from pvar.records import Comparison, Message
from tasks.stages.verdict_cache import VerdictCache, verdict_key

JUDGE: Identity = {"kind": "arena_hard", "model": "m", "template": "t1", "temperature": 0.0}
ASKED = Comparison("p", (Message("user", "Why?"),), "opponent's", "challenger's")


@pytest.fixture
def cache(file_store: Store) -> VerdictCache:
    return VerdictCache(file_store)


def keys(cache: VerdictCache) -> list[str]:
    return [info.key for info in cache.store.list("verdicts/")]


def test_a_verdict_is_found_again_with_its_evidence_by_another_process(
    cache: VerdictCache, file_store: Store
) -> None:
    cache.keep(JUDGE, ASKED, 0.75, "Because. [[B>A]]")

    found = VerdictCache(open_store(file_store.uri)).find(JUDGE, ASKED)
    assert found is not None
    assert (found.preference, found.evidence, found.judge) == (0.75, "Because. [[B>A]]", JUDGE)


@pytest.mark.parametrize(
    "changed",
    [
        # A retrained model: same prompt, same judge, another text.
        lambda: (JUDGE, ASKED._replace(second="challenger's, retrained")),
        lambda: (JUDGE, ASKED._replace(first="another opponent's")),
        lambda: (JUDGE, ASKED._replace(first=ASKED.second, second=ASKED.first)),
        lambda: (JUDGE, ASKED._replace(messages=(Message("user", "Why not?"),))),
        lambda: (JUDGE, ASKED._replace(messages=(Message("system", "Why?"),))),
        # The border between the texts counts.
        lambda: (JUDGE, ASKED._replace(first="opponent'sc", second="hallenger's")),
        lambda: ({**JUDGE, "template": "t2"}, ASKED),
        lambda: ({**JUDGE, "temperature": 0.1}, ASKED),
        lambda: ({**JUDGE, "model": "m2"}, ASKED),
    ],
)
def test_another_text_prompt_judge_template_or_parameter_finds_nothing(
    cache: VerdictCache, changed: Callable[[], tuple[Identity, Comparison]]
) -> None:
    cache.keep(JUDGE, ASKED, 1.0, None)

    assert cache.find(*changed()) is None


def test_the_prompts_name_and_the_order_of_the_identity_do_not_matter(cache: VerdictCache) -> None:
    cache.keep(JUDGE, ASKED, 1.0, None)

    assert (
        cache.find(dict(reversed(list(JUDGE.items()))), ASKED._replace(prompt_id="other"))
        is not None
    )


def test_the_first_verdict_stays(cache: VerdictCache) -> None:
    cache.keep(JUDGE, ASKED, 1.0, "first")
    cache.keep(JUDGE, ASKED, 0.0, "second")

    found = cache.find(JUDGE, ASKED)
    assert found is not None
    assert (found.preference, found.evidence) == (1.0, "first")
    assert keys(cache) == [verdict_key(JUDGE, ASKED)]


@pytest.mark.parametrize("preference", [float("nan"), -0.1, 1.5])
def test_what_is_no_preference_is_not_kept(cache: VerdictCache, preference: float) -> None:
    with pytest.raises(ValidationError):
        cache.keep(JUDGE, ASKED, preference, None)

    assert keys(cache) == []


def test_a_damaged_verdict_is_judged_anew(cache: VerdictCache) -> None:
    cache.store.write(verdict_key(JUDGE, ASKED), b'{"preference": 7}')

    assert cache.find(JUDGE, ASKED) is None
    cache.keep(JUDGE, ASKED, 0.5, None)
    assert cache.find(JUDGE, ASKED) is not None


def test_any_text_makes_a_key_of_the_store(cache: VerdictCache) -> None:
    odd = ASKED._replace(first="../../x\u2028\x00/" * 1000, second="")
    cache.keep(JUDGE, odd, 0.5, "\u2028 ✓")

    found = cache.find(JUDGE, odd)
    assert found is not None
    assert found.evidence == "\u2028 ✓"


def test_a_verdict_keeps_what_the_server_called_itself(cache: VerdictCache) -> None:
    cache.keep(JUDGE, ASKED, 1.0, None, "m-2026-01-01", "fp_a")

    found = cache.find(JUDGE, ASKED)
    assert found is not None
    assert (found.served_model, found.system_fingerprint) == ("m-2026-01-01", "fp_a")


def test_a_verdict_of_an_earlier_version_is_read_and_one_without_a_server_is_stored_as_then(
    cache: VerdictCache,
) -> None:
    earlier = (
        b'{\n "judge": {\n  "kind": "arena_hard",\n  "model": "m",\n  "template": "t1",\n'
        b'  "temperature": 0.0\n },\n "preference": 1.0,\n "evidence": null\n}'
    )
    cache.store.write(verdict_key(JUDGE, ASKED), earlier)
    found = cache.find(JUDGE, ASKED)
    assert found is not None
    assert (found.preference, found.served_model, found.system_fingerprint) == (1.0, None, None)

    other = ASKED._replace(first="another")
    cache.keep(JUDGE, other, 1.0, None)
    assert cache.store.read(verdict_key(JUDGE, other)) == earlier


def test_all_verdicts_that_there_are_are_found_at_once(cache: VerdictCache) -> None:
    asked = [ASKED._replace(first=f"opponent {number}") for number in range(40)]
    for number, comparison in enumerate(asked[::2]):
        cache.keep(JUDGE, comparison, number / 40, str(number))

    found = cache.find_all(JUDGE, asked)
    assert {comparison: kept.evidence for comparison, kept in found.items()} == {
        comparison: str(number) for number, comparison in enumerate(asked[::2])
    }


def test_epochs_and_further_askings_have_verdicts_of_their_own(cache: VerdictCache) -> None:
    """And the first epoch's are those that were stored before there were epochs."""
    assert VerdictCache(cache.store, 1) == cache
    cache.keep(JUDGE, ASKED, 1.0, None)
    others = [VerdictCache(cache.store, 2), VerdictCache(cache.store, again_for="judge/a")]
    for number, other in enumerate(others):
        assert other.find(JUDGE, ASKED) is None
        other.keep(JUDGE, ASKED, number / 4, None)
    found = [each.find(JUDGE, ASKED) for each in (cache, *others)]
    assert [kept.preference for kept in found if kept] == [1.0, 0.0, 0.25]
    assert cache.store.read(verdict_key(JUDGE, ASKED))
