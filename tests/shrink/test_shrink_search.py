"""The search, tested with predicates in place of deployments."""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.shrink.candidate import Candidate, Piece, PrefixLengths
from harness.shrink.shrinker import MISSED, Limits, Shrinker, tries_for

BLOCK = 16
LENGTHS = PrefixLengths(BLOCK)
Fails = Callable[[Candidate], bool]


def load(count: int, *, prompt: int = 100, output: int = 20, concurrency: int = 32) -> Candidate:
    return Candidate.of((Piece(number, prompt + number, output) for number in range(count)), concurrency)


def shrunk(whole: Candidate, fails: Fails, limits: Limits, hints: tuple[Candidate, ...] = ()) -> Shrinker:
    async def attempt(candidate: Candidate) -> bool:
        return fails(candidate)

    shrinker = Shrinker(whole, attempt, limits)
    asyncio.run(shrinker.run(hints, LENGTHS))
    return shrinker


def numbers(candidate: Candidate) -> set[int]:
    return {piece.number for piece in candidate.pieces}


def neighbours(best: Candidate) -> Iterator[Candidate]:
    """All candidates that are one step smaller, by the definition of 1-minimal and not by the search's code."""
    for piece in best.pieces:
        if len(best.pieces) > 1:
            yield Candidate.of((other for other in best.pieces if other != piece), best.concurrency)
        prompts = [n for n in range(1, piece.prompt) if n <= 2 or n % BLOCK in (0, 1, BLOCK - 1)]
        outputs = [n for n in range(1, piece.output) if n & (n - 1) == 0]
        for smaller in (
            *(replace(piece, prompt=n) for n in prompts[-1:]),
            *(replace(piece, output=n) for n in outputs[-1:]),
        ):
            pieces = tuple(smaller if other == piece else other for other in best.pieces)
            yield replace(best, pieces=pieces)
    if best.concurrency > 1:
        yield replace(best, concurrency=1)
        yield replace(best, concurrency=best.concurrency // 2)


@st.composite
def predicates(draw: st.DrawFn) -> tuple[Candidate, Fails]:
    """Loads that fail if certain requests are present, long enough, and concurrent enough."""
    count = draw(st.integers(1, 24))
    whole = load(count, concurrency=draw(st.integers(1, 32)))
    culprits = draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=4))
    prompt = {number: draw(st.integers(1, 100)) for number in culprits}
    output = draw(st.integers(1, 20))
    together = draw(st.integers(1, whole.concurrency))
    at_least = draw(st.integers(1, count))

    def fails(candidate: Candidate) -> bool:
        guilty = [piece for piece in candidate.pieces if piece.number in culprits]
        return (
            len(guilty) == len(culprits)
            and all(piece.prompt >= prompt[piece.number] and piece.output >= output for piece in guilty)
            and candidate.concurrency >= together
            and len(candidate.pieces) >= at_least
        )

    return whole, fails


@given(predicates())
def test_the_result_fails_and_nothing_one_step_smaller_does(case: tuple[Candidate, Fails]) -> None:
    whole, fails = case
    found = shrunk(whole, fails, Limits(1, 100_000))
    assert found.complete
    assert fails(found.best)
    assert not [smaller for smaller in neighbours(found.best) if fails(smaller)]


@given(st.integers(2, 10), st.integers(0, 2**32), st.integers(1, 32))
def test_the_result_is_1_minimal_also_if_failures_are_not_monotonic(count: int, seed: int, concurrency: int) -> None:
    """Any candidate may fail, at random."""
    whole = load(count, concurrency=concurrency)

    def fails(candidate: Candidate) -> bool:
        return candidate == whole or hash((candidate, seed)) % 5 == 0

    found = shrunk(whole, fails, Limits(1, 100_000))
    assert found.complete
    assert fails(found.best)
    assert not [smaller for smaller in neighbours(found.best) if fails(smaller)]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 60), st.integers(0, 100))
def test_never_more_tries_than_allowed_and_each_find_is_smaller(count: int, tries: int, most: int, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    asked: list[Candidate] = []

    def fails(candidate: Candidate) -> bool:
        asked.append(candidate)
        return rng.random() < 0.3

    found = shrunk(load(count), fails, Limits(tries, most))
    assert len(asked) == found.tries <= most
    assert all(asked.count(candidate) <= tries for candidate in asked)
    for before, after in zip(found.accepted, found.accepted[1:], strict=False):
        assert numbers(after) <= numbers(before)
        assert after.concurrency <= before.concurrency
        assert after != before
        was = {piece.number: piece for piece in before.pieces}
        assert all(p.prompt <= was[p.number].prompt and p.output <= was[p.number].output for p in after.pieces)


def test_one_culprit_among_many_is_found_by_halving() -> None:
    found = shrunk(load(128), lambda one: 77 in numbers(one), Limits(1, 1000))
    assert found.best == Candidate((Piece(77, 1, 1),), 1)
    assert found.tries < 40


def test_a_hint_saves_the_halving() -> None:
    whole = load(128)
    found = shrunk(whole, lambda one: 77 in numbers(one), Limits(1, 1000), (whole.only([3]), whole.only([77])))
    assert found.best == Candidate((Piece(77, 1, 1),), 1)
    assert found.tries < 15


def test_a_prompt_is_shortened_to_a_length_near_block_boundaries() -> None:
    found = shrunk(load(1), lambda one: one.pieces[0].prompt > 40, Limits(1, 1000))
    assert found.best.pieces[0].prompt == 3 * BLOCK - 1, "the next shorter length of interest, 33, does not fail"


def test_text_is_not_shortened() -> None:
    async def attempt(_: Candidate) -> bool:
        return True

    shrinker = Shrinker(load(3), attempt, Limits(1, 1000))
    best = asyncio.run(shrinker.run((), PrefixLengths(BLOCK, frozenset({0, 1, 2}))))
    assert best.pieces[0].prompt == 100 + best.pieces[0].number
    assert best.pieces[0].output == 1


def test_a_fault_that_needs_concurrency_keeps_as_much_as_it_needs() -> None:
    found = shrunk(load(64), lambda one: one.concurrency >= 3, Limits(1, 1000))
    assert (len(found.best.pieces), found.best.concurrency) == (3, 3)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_an_intermittent_fault_is_tried_often_enough(seed: int) -> None:
    """A request that fails every other time is never lost, because it is tried at least five times."""
    rng = random.Random(seed)  # noqa: S311 - no secret

    def fails(candidate: Candidate) -> bool:
        return 5 in numbers(candidate) and rng.random() < 0.8

    assert 5 in numbers(shrunk(load(32), fails, Limits(tries_for(1), 10_000)).best)


def test_the_best_so_far_is_kept_when_time_is_up_or_the_search_is_cancelled() -> None:
    late = iter([False, False, True])
    found = shrunk(load(64), lambda _: True, Limits(3, 100, lambda: next(late)))
    assert (found.tries, found.complete) == (2, False)
    assert len(found.best.pieces) == 16

    async def attempt(candidate: Candidate) -> bool:
        if len(candidate.pieces) < 10:
            raise asyncio.CancelledError
        return True

    shrinker = Shrinker(load(64), attempt, Limits(3, 100))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(shrinker.run((), LENGTHS))
    assert len(shrinker.best.pieces) == 16


@pytest.mark.parametrize(("runs", "tries"), [(1, 5), (2, 11), (3, 17), (5, 20)])
def test_the_number_of_tries_depends_on_the_whole_loads_failure_rate(runs: int, tries: int) -> None:
    assert tries_for(runs) == tries
    if tries < 20:
        assert (1 - 1 / (2 * runs)) ** tries <= MISSED < (1 - 1 / (2 * runs)) ** (tries - 1)


def test_times_of_sending_are_kept_only_if_the_fault_needs_them() -> None:
    whole = replace(load(16), timed=True)
    needed = shrunk(whole, lambda one: one.timed and {3, 9} <= numbers(one), Limits(1, 1000), (whole.only([3]),))
    assert (needed.best.timed, numbers(needed.best)) == (True, {3, 9})
    asked: list[Candidate] = []
    free = shrunk(whole, lambda one: not asked.append(one) and 3 in numbers(one), Limits(1, 1000), (whole.only([3]),))
    assert free.best == Candidate((Piece(3, 1, 1),), 1, timed=False)
    assert not any(one.timed for one in asked), "no try has to wait"


def test_the_limit_of_requests_in_flight_is_not_searched_where_times_are_kept() -> None:
    asked: list[Candidate] = []
    shrunk(replace(load(6), timed=True), lambda one: not asked.append(one) and one.timed, Limits(1, 1000))
    assert all(one.concurrency == len(one.pieces) for one in asked if one.timed)
