"""A function that remembers its last result: by the identity of its arguments, and of the items of tuples."""

from harness.memo import forget, once


class Thing:
    """Equal to every other one."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    __hash__ = None  # type: ignore[assignment]


def test_equal_arguments_are_told_apart_and_tuples_with_the_same_items_are_not() -> None:
    calls: list[object] = []

    @once
    def kept(given: object) -> int:
        calls.append(given)
        return len(calls)

    one, other = Thing(), Thing()
    assert [kept(one), kept(one), kept(other)] == [1, 1, 2]
    assert [kept((one, other)), kept((one, other)), kept((other, one)), kept((other,))] == [3, 3, 4, 5]


def test_what_was_forgotten_is_computed_again() -> None:
    calls: list[int] = []

    @once
    def kept(given: int) -> int:
        calls.append(given)
        return given

    assert [kept(5), kept(5)] == [5, 5]
    forget()
    assert kept(5) == 5
    assert calls == [5, 5]
