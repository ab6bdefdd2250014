"""Splits a phase between workers. Pure.

Rule 1: every request is in exactly one part, in the order of the phase.
Rule 2: requests that continue each other stay together, since a later turn needs the earlier turn's answer; so do those
that send another one's reference to KV. Without any of these, request k is in part k mod N.
Rule 3: the parts' limits of requests in flight add up to the phase's. No part has a limit of 0, so there are at most as
many parts as the limit. The same holds for background requests, which may be in fewer parts.
Rule 4: times of a schedule count from the phase's beginning, and stay with their requests.

A part's background requests end with its own requests, which may be somewhat before the other parts' requests end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import repeat

from harness.scenario import Phase, Request


def split(phase: Phase, workers: int) -> tuple[Phase, ...]:
    """The phase's parts, at most ``workers`` of them, and at least one."""
    together = _conversations(phase.requests)
    groups = len(set(together.values()))
    number = max(1, min(workers, phase.concurrency, groups))
    beside = max(1, min(number, phase.background_concurrency))
    due = dict(zip(_scheduled(phase), phase.due, strict=True)) if phase.due else {}
    parts = []
    for index in range(number):
        requests = tuple(one for one in phase.requests if together[one.request_id] % number == index)
        part = replace(
            phase,
            requests=requests,
            concurrency=_share(phase.concurrency, number, index),
            background=phase.background[index::beside] if index < beside else (),
            background_concurrency=_share(phase.background_concurrency, beside, index) if index < beside else 0,
        )
        parts.append(replace(part, due=tuple(due[one] for one in _scheduled(part) if one in due)))
    return tuple(parts)


def _share(whole: int, number: int, index: int) -> int:
    """What one of ``number`` parts has of a whole; the first parts have the remainder."""
    return whole // number + (index < whole % number)


def _scheduled(phase: Phase) -> list[str]:
    """Ids of the requests that the schedule has times for: all but the later turns of sessions."""
    return [one.request_id for one in phase.requests if one.request_id not in phase.think_times]


def _conversations(requests: Sequence[Request]) -> dict[str, int]:
    """The number of each request's conversation, counted from 0 in the order of their first requests."""
    first = _first_turns(requests)
    order = {one: number for number, one in enumerate(dict.fromkeys(first.values()))}
    return {request_id: order[one] for request_id, one in first.items()}


def _first_turns(requests: Iterable[Request]) -> dict[str, str]:
    """For each request, the first turn of its conversation, as far as that is among the requests."""
    own = {one.request_id for one in requests}
    before = {one.request_id: one.continues if one.continues in own else one.reference_of for one in requests}
    first: dict[str, str] = {}
    for request_id in before:
        path = [request_id]
        while path[-1] not in first and (turn := before[path[-1]]) in before and turn is not None and turn not in path:
            path.append(turn)
        first.update(zip(path, repeat(first.get(path[-1], path[-1]))))
    return first
