"""First tokens as prefill and decode report them: which requests are equal to the last bit, and which are strange."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from counted_run import DEPLOYMENT
from first_tokens import load, moved, served, vector

from harness.history import Ended, Entry, History, Named, Outcome
from harness.scenario import Purpose, Route
from harness.verify.judging import outputs
from harness.verify.judging.witness import witnessed


def one(own: Named, said: Named) -> float | None:
    """The gap of a single request; None if it was not compared."""
    return witnessed(History(tuple(served("r", own=own, said=said)))).gaps.get("r")


def gap_of(own: Named, said: Named) -> float:
    found = one(own, said)
    assert found is not None
    return found


def far(names: Iterable[int], by: float = 0.5) -> dict[str, float]:
    """Requests with falling differences, the first one largest."""
    return {f"r{name}": by / (place + 1) for place, name in enumerate(names)}


def test_the_order_of_the_tokens_does_not_matter() -> None:
    assert one(vector("r"), vector("r")[::-1]) == 0.0


def test_a_single_last_bit_is_a_difference() -> None:
    (token, value), *rest = vector("r")
    assert gap_of(((token, math.nextafter(value, 0.0)), *rest), vector("r")) > 0.0


def test_a_common_shift_is_a_difference_though_the_distance_ignores_it() -> None:
    halves = tuple((token, -token / 2) for token in range(1, 6))
    shift = tuple((token, value - 0.25) for token, value in halves)
    assert 0.0 < gap_of(shift, halves) < 1e-300


def test_the_gap_is_the_standard_deviation_of_the_differences() -> None:
    assert gap_of(moved(vector("r"), 0.5), vector("r")) == pytest.approx(0.5 * math.sqrt(0.2 * 0.8))


def test_tokens_that_are_not_prefills_are_infinitely_far_and_said_to_be_others() -> None:
    history = load(20)
    others = tuple((token + 3, value) for token, value in vector("x"))
    found = witnessed(History((*history.entries, *served("x", own=others, said=vector("x")))))
    assert math.isinf(found.gaps["x"])
    assert found.strangest == ("x",)
    assert "most probable tokens are not prefill's" in found.doubt("x")


def test_two_tokens_are_too_few_to_compare_even_if_they_are_equal() -> None:
    two = vector("r")[:2]
    assert one(two, two) is None
    assert one(moved(two, 0.5), two) is None
    assert one(moved(vector("r"), 0.5), two) is None
    assert one((), vector("r")) is None
    assert one((), ()) is None


def test_a_log_probability_that_neither_server_can_name_is_equal_and_one_that_decode_alone_cannot_is_not() -> None:
    def unnamed() -> Named:
        # Every answer is parsed by itself, so that no two NaN are one object.
        (token, _), *rest = vector("r")
        return ((token, float("nan")), *rest)

    assert one(unnamed(), unnamed()) == 0.0
    assert gap_of(unnamed(), vector("r")) > 0.0
    assert gap_of(vector("r"), unnamed()) > 0.0


def test_if_nine_tenths_are_equal_all_others_are_strange_the_farthest_first() -> None:
    found = witnessed(load(40, far((7, 3, 30, 11))))
    assert (found.exact, found.equal) == (True, 36)
    assert found.strangest == ("r7", "r3", "r30", "r11")
    assert all(found.doubt(name) for name in found.strangest)
    assert not found.doubt("r0")
    assert not found.doubt("unknown")


def test_if_fewer_are_equal_the_farthest_two_in_a_hundred_are_strange_and_none_is_doubtful_by_it() -> None:
    found = witnessed(load(40, alike((7, 3, 30, 11, 2))))
    assert (found.exact, found.equal, found.strangest) == (False, 35, ("r7",))
    assert not found.doubt("r7")
    noisy = alike(range(200))
    assert witnessed(load(200, noisy)).strangest == ("r0", "r1", "r2", "r3")
    # Of 201 requests, 4.02 are strange: rounded up.
    assert len(witnessed(load(201, noisy | {"r200": 1e-9})).strangest) == 5


def test_all_that_are_twice_as_far_as_nine_in_ten_are_strange() -> None:
    noisy = alike(range(200)) | {f"r{number}": 1.5 for number in range(0, 200, 20)}
    assert set(witnessed(load(200, noisy)).strangest) == {f"r{number}" for number in range(0, 200, 20)}


def alike(numbers: Iterable[int]) -> dict[str, float]:
    """Requests that are about equally far, the first ones farthest."""
    return {f"r{number}": 0.5 - 0.0001 * place for place, number in enumerate(numbers)}


def test_fewer_than_sixteen_compared_requests_show_nothing() -> None:
    few, enough = (witnessed(load(count, {"r1": 0.5})) for count in (15, 16))
    assert (few.exact, few.strangest, few.doubt("r1")) == (False, (), "")
    assert (enough.exact, enough.strangest) == (True, ("r1",))
    noisy = {f"r{number}": 0.1 + number for number in range(16)}
    assert witnessed(load(15, noisy)).strangest == ()
    assert witnessed(load(16, noisy)).strangest == ("r15",)


def with_request(**fields: Any) -> History:
    (sent, ended) = served("x", own=moved(vector("x"), 9.0), said=vector("x"), **fields)
    return History((*load(20).entries, sent, ended))


def test_background_requests_count_and_requests_that_verify_or_go_elsewhere_do_not() -> None:
    assert witnessed(with_request(purpose=Purpose.BACKGROUND)).strangest == ("x",)
    for fields in ({"purpose": Purpose.RETRY}, {"route": Route.DECODE}, {"route": Route.PREFILL}):
        found = witnessed(with_request(**fields))
        assert (len(found.gaps), found.served, found.strangest) == (20, 20, ())


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.INFO])
def test_requests_that_did_not_complete_do_not_count(outcome: Outcome) -> None:
    def broken(entry: Entry) -> Entry:
        return replace(entry, outcome=outcome) if isinstance(entry, Ended) and entry.request_id == "x" else entry

    found = witnessed(History(tuple(map(broken, with_request().entries))))
    assert (len(found.gaps), found.served) == (20, 20)


def note(history: History) -> str:
    """The note, which the check of outputs has too."""
    found = witnessed(history).note
    notes = outputs(DEPLOYMENT, history).notes
    assert (found in notes) if found else not any("first tokens" in one for one in notes)
    return found


def test_the_note_says_how_many_were_compared_and_how_many_are_equal() -> None:
    unheard = tuple(served("silent", own=vector("silent"), said=()))
    history = History((*load(40, far((7, 3))).entries, *unheard))
    assert note(history) == ("first tokens were compared with prefill's for 40 of 41 outputs: 38 equal to the last bit")


def test_the_note_on_a_noisy_run_says_how_far_the_strangest_are() -> None:
    # One of five log-probabilities is off by 0.5 nats, which moves the standard deviation by 0.4 of that.
    assert note(load(101, alike(range(101)))) == (
        "first tokens were compared with prefill's for 101 of 101 outputs; the 3 strangest differ by 0.2 nats or more"
    )


def test_the_note_on_a_noisy_run_in_which_the_strangest_have_other_tokens_says_no_number() -> None:
    noisy = load(30, {f"r{number}": 0.01 for number in range(30)})
    others = tuple((token + 3, value) for token, value in vector("x"))
    assert note(History((*noisy.entries, *served("x", own=others, said=vector("x"))))) == (
        "first tokens were compared with prefill's for 31 of 31 outputs; the most probable tokens of the 1 strangest "
        "are not prefill's"
    )


def test_the_note_says_what_is_missing_if_the_proxy_hands_nothing_on() -> None:
    silent = [entry for name in "ab" for entry in served(name, own=vector(name), said=())]
    assert note(History(tuple(silent))).startswith(
        "first tokens were not compared with prefill's: no answer says what prefill computed"
    )


def test_there_is_no_note_if_nothing_came_through_the_proxy() -> None:
    assert note(History(())) == ""
    assert note(History(tuple(served("d", own=vector("d"), said=vector("d"), route=Route.DECODE)))) == ""
