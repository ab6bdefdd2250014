"""Outputs of the same requests on both sides."""

import pytest
from made_stored_runs import output

from harness.compare.evidence import Answer
from harness.compare.outputs import compare_outputs

RIGHT = output([1, 2, 3, 4], right=True, request="old", lead=0.25)


def test_equal_outputs_are_the_same() -> None:
    found = compare_outputs([{b"a": RIGHT, b"b": RIGHT}], [{b"a": RIGHT, b"c": RIGHT}])
    assert (found.shared, found.equal, found.answer) == (1, 1, Answer.SAME)


def test_an_output_that_is_wrong_in_the_run_alone_is_real() -> None:
    found = compare_outputs([{b"a": RIGHT}], [{b"a": output([1, 2, 9, 4], wrong=True, request="new", lead=0.1)}])
    assert (found.wrong_in_run, found.wrong_in_baseline, found.answer) == (1, 0, Answer.REAL)
    (one,) = found.examples
    assert (one.baseline, one.run, one.token, one.wrong) == ("old", "new", 2, "run")
    assert one.lead == pytest.approx(0.25)


def test_an_output_that_is_wrong_in_the_baseline_alone_is_no_worsening() -> None:
    found = compare_outputs([{b"a": output([9], wrong=True)}], [{b"a": output([1], right=True)}])
    assert (found.wrong_in_baseline, found.wrong_in_run) == (1, 0)
    assert found.answer is Answer.NOISE


def test_two_right_outputs_that_differ_are_a_near_tie() -> None:
    found = compare_outputs([{b"a": RIGHT}], [{b"a": output([1, 2, 3, 5], right=True)}])
    assert (found.near_ties, found.answer) == (1, Answer.NOISE)


def test_an_unverified_difference_cannot_be_told() -> None:
    found = compare_outputs([{b"a": RIGHT}], [{b"a": output([1, 2, 3, 5])}])
    assert (found.unexplained, found.answer) == (1, Answer.UNKNOWN)


def test_an_output_that_a_run_of_the_baseline_gave_too_is_equal() -> None:
    other = output([1, 2, 3, 5])
    found = compare_outputs([{b"a": RIGHT}, {b"a": other}], [{b"a": other}])
    assert (found.equal, found.differing_within, found.differing_between) == (1, 1.0, 0.5)


def test_a_longer_output_differs_after_the_end_of_the_shorter() -> None:
    found = compare_outputs([{b"a": output([1, 2])}], [{b"a": output([1, 2, 3])}])
    assert found.examples[0].token == 2


def test_no_request_in_common_is_unknown() -> None:
    found = compare_outputs([{b"a": RIGHT}], [{b"b": RIGHT}])
    assert (found.shared, found.answer) == (0, Answer.UNKNOWN)


def test_as_many_differences_as_within_the_baseline_are_noise() -> None:
    """Every request has two outputs that noise chooses between, and none was verified."""
    keys = [bytes([n]) for n in range(60)]
    first = {key: output([1, n % 2]) for n, key in enumerate(keys)}
    second = {key: output([1, n // 2 % 2]) for n, key in enumerate(keys)}
    third = {key: output([1, n // 3 % 2 + (n % 10 == 0)]) for n, key in enumerate(keys)}
    found = compare_outputs([first, second], [third])
    assert found.unexplained
    assert found.answer is Answer.NOISE
    broken = {key: output([7, n]) for n, key in enumerate(keys)}
    assert compare_outputs([first, second], [broken]).answer is Answer.UNKNOWN
