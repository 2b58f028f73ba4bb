"""Looks at an exam: the same results are one look, and a lost object changes no other number."""

from pvar.ports import Store
from tasks.stages.exam_looks import look_at


def test_a_gap_keeps_the_numbers_and_the_next_look_is_after_the_last(file_store: Store) -> None:
    numbers = [look_at(file_store, "m", "e", results) for results in ("a", "b", "c")]
    assert numbers == [1, 2, 3]
    file_store.delete("looks/m/e/000002.json")  # restored in part
    assert look_at(file_store, "m", "e", "c") == 3
    assert look_at(file_store, "m", "e", "d") == 4
    assert look_at(file_store, "m", "e", "b") == 5  # forgotten, so it is another look
    assert look_at(file_store, "m", "other exam", "d") == 1
