"""The oracle's fast answers are those of the plain definitions, for any requests that share blocks and overlap."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import plain_caches as plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.made_run import Settings, deployment_of, history_of
from harness.oracle import predict
from harness.oracle.blocks import Block, Names
from harness.oracle.offload_tier import OffloadTier
from harness.oracle.points import Points
from harness.oracle.prefix_cache import PrefixCache
from harness.oracle.residency import Residency, Use
from harness.oracle.server_request import NOTIFICATION_DELAY, ServerRequest
from harness.oracle.sharing import Sharing
from harness.oracle.unknown_blocks import UnknownBlocks
from harness.verdict import Bounds

TOKENS = st.lists(st.integers(0, 1), max_size=5).map(tuple)
"""Few different tokens, so that most chains share a beginning."""
QUARTERS = st.integers(0, 12).map(lambda n: n / 4)
"""Times that are often equal, and delays that are often just the oracle's own."""
MOSTLY = st.sampled_from([True, True, True, False])


@st.composite
def uses(draw: st.DrawFn) -> list[Use]:
    """Uses of chains in the order of their starts; some never end, and some are not certain."""
    names, made = Names(1), []
    for start in sorted(draw(st.lists(QUARTERS.map(lambda t: t * 2), max_size=14))):
        possible = names.chain(None, draw(TOKENS))
        end = start + draw(QUARTERS) if draw(MOSTLY) else inf
        certain = possible[: draw(st.integers(0, 5))] if end < inf else ()
        spare = draw(st.integers(0, 2))
        released = end + draw(st.sampled_from((0.0, 0.5)))
        more = draw(st.integers(0, 2))
        made.append(Use(start, end, released, certain, possible, (spare, spare + more), draw(st.integers(0, 1))))
    return made


def even(name: Block) -> bool:
    return name % 2 == 0


def never(_: Block) -> bool:
    return False


@settings(max_examples=60, deadline=None)
@given(made=uses(), capacity=st.one_of(st.none(), st.integers(1, 24)), initial=st.sampled_from((even, never)))
def test_a_store_holds_what_the_plain_definition_says(
    made: list[Use], capacity: int | None, initial: Callable[[Block], bool]
) -> None:
    fast, slow = Residency(made, capacity, initial), plain.PlainResidency(made, capacity, initial)
    assert fast.may_evict == slow.may_evict
    for user, use in enumerate(made):
        for depth, name in enumerate(use.possible):
            where = (user, use.possible, depth)
            assert fast.first_end(name) == slow.first_end(name)
            assert fast.certainly(*where) == slow.certainly(*where)
            assert fast.possibly(*where) == slow.possibly(*where)


@settings(max_examples=50, deadline=None)
@given(made=uses(), start=QUARTERS, length=st.one_of(QUARTERS, st.just(inf)), data=st.data())
def test_a_window_has_as_many_places_as_the_plain_definition_counts(
    made: list[Use], start: float, length: float, data: st.DataObject
) -> None:
    fast, slow = Residency(made, 1, never), plain.PlainResidency(made, 1, never)
    excluded = tuple(data.draw(st.lists(st.sampled_from(range(len(made))), max_size=2, unique=True)) if made else ())
    for use in made:
        for depth in range(len(use.possible)):
            window = (start * 2, start * 2 + length * 2, excluded, use.possible, depth)
            assert fast.max_places(*window) == slow.max_places(*window)
            assert fast._min_places(*window[:2], *window[3:]) == slow.min_places(*window[:2], *window[3:])


@settings(max_examples=50, deadline=None)
@given(
    points=st.dictionaries(st.tuples(st.integers(0, 20), st.integers(0, 20)), st.integers(-3, 3), max_size=200),
    corner=st.tuples(st.integers(-1, 21), st.integers(-1, 21)),
)
def test_weights_of_a_quadrant_are_added(points: dict[tuple[float, float], int], corner: tuple[int, int]) -> None:
    inside = (weight for (x, y), weight in points.items() if x >= corner[0] and y <= corner[1])
    assert Points(points).total(*corner) == sum(inside)


# --- requests ---


@dataclass(frozen=True)
class Served:
    """A server's requests, and the known tokens of each."""

    requests: list[ServerRequest]
    known: list[tuple[int, ...]]


@st.composite
def served(draw: st.DrawFn, size: int, *, unknown: bool = True) -> Served:
    """Requests with blocks of ``size`` tokens."""
    names, found = Names(size), Served([], [])
    for number, start in enumerate(sorted(draw(st.lists(QUARTERS.map(lambda t: t * 2), max_size=12)))):
        prompt = draw(st.lists(st.integers(0, 1), max_size=9).map(tuple)) if unknown or number else (0,)
        output = draw(TOKENS) if prompt else ()
        ends = draw(MOSTLY)
        whole = bool(prompt) and ends and (not unknown or draw(MOSTLY))
        salt = draw(st.sampled_from((None, None, "salt")))
        blocks = names.chain(salt, prompt + output[:-1])
        end = start + draw(QUARTERS) if ends else inf
        found.known.append(prompt + output)
        found.requests.append(
            ServerRequest(
                request_id=str(number),
                phase=("scenario", draw(st.sampled_from("ab"))),
                start=start,
                end=end,
                released=end + draw(st.sampled_from((0.0, NOTIFICATION_DELAY))),
                certain=ends and draw(MOSTLY),
                pulls=draw(st.booleans()),
                reads_caches=draw(MOSTLY),
                prompt=prompt,
                salt=salt,
                chain=blocks[: len(prompt) // size],
                output_chain=blocks[len(prompt) // size :],
                known_length=len(prompt) + len(output),
                rest=() if whole else (prompt + output)[len(blocks) * size :],
                max_length=len(prompt) + len(output) + draw(st.integers(0, 4)),
                blocks_known=whole,
                generated=Bounds.exactly(1),
            )
        )
    return found


@settings(max_examples=50, deadline=None)
@given(made=served(2))
def test_unknown_blocks_reach_as_far_as_the_plain_definition_says(made: Served) -> None:
    fast = UnknownBlocks(made.requests, 2)
    for index in range(len(made.requests)):
        assert fast.reach(index) == plain.reach(index, made.requests, made.known)


@settings(max_examples=40, deadline=None)
@given(made=served(2), loads_parts=st.booleans())
def test_requests_that_share_a_block_have_copies_as_the_plain_definition_says(made: Served, loads_parts: bool) -> None:
    sharing = Sharing(made.requests, loads_parts=loads_parts)
    for index, request in enumerate(made.requests):
        assert sharing.may_copy(request) == plain.may_copy(index, made.requests, loads_parts=loads_parts)


@pytest.mark.parametrize("blocks_per_chunk", [1, 2])
@settings(max_examples=40, deadline=None)
@given(
    made=served(1),
    facts=st.fixed_dictionaries(
        {
            "chunks": st.one_of(st.none(), st.integers(1, 40)),
            "prompt_only": st.sampled_from((True, False, None)),
            "attached": st.booleans(),
            "step_tokens": st.one_of(st.none(), st.integers(1, 60)),
        }
    ),
)
def test_a_tier_stores_what_the_plain_definition_says(
    blocks_per_chunk: int, made: Served, facts: dict[str, Any]
) -> None:
    tier = OffloadTier(made.requests, 1, blocks_per_chunk, **facts)
    for index in range(len(made.requests)) if tier.offers.may_evict else ():
        use = tier.residency.uses[index]
        assert replace(use, certain=(*use.certain,)) == plain.reliable_use(tier, index)
    assert tier.stored() == plain.stored(tier)


@settings(max_examples=40, deadline=None)
@given(made=served(1, unknown=False), blocks=st.one_of(st.none(), st.integers(1, 40)), attached=st.booleans())
def test_a_missed_block_is_new_if_the_plain_definition_says_so(
    made: Served, blocks: int | None, attached: bool
) -> None:
    cache = PrefixCache(made.requests, 1, blocks, attached=attached, loads=True)
    known = all(one.blocks_known for one in made.requests)
    for index, request in enumerate(made.requests) if known else ():
        for depth in range(len(request.chain)):
            assert cache.new_if_missed(index, depth) == plain.new_if_missed(cache, index, depth)


def test_a_server_that_was_predicted_is_freed_at_once() -> None:
    """Its tables are most of the memory of judging, and the collector of garbage may be paused."""
    made = Settings(120, concurrency=8, phase=40, output=4, blocks=160, chunks=120, wrong=0)
    alive = {kind: sum(isinstance(one, kind) for one in gc.get_objects()) for kind in (Residency, ServerRequest)}
    gc.collect()
    gc.disable()
    try:
        predict(deployment_of(made), history_of(made).operations())
        left = [one for one in gc.get_objects() if isinstance(one, Residency | ServerRequest)]
    finally:
        gc.enable()
    assert len(left) <= sum(alive.values())
