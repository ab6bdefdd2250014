"""Requests straight to prefill servers beside a load, which take the blocks that the load's requests leave there.

A lease that has ended shows only if the server works on (vLLM looks for expired requests in its steps), and only if
its blocks are given to others. A load cannot do that itself while decode is stopped: all its requests wait there.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, cycle, islice

from harness.scenario import Phase, Purpose, Request, Route

IN_FLIGHT = 4
"""Requests at a time: prefill stays busy, and serves the load's own requests too."""
_SUPPLY = 4_000
"""Requests that are ready to be sent, at most: a simulated pair serves some hundreds a second."""


def churned(load: Phase, scenario: str) -> Phase:
    """The phase with such requests beside it, as long as requests of its own are in flight.

    Their prompts are the load's own, which are turned round by one more token each time, so that no cache has them.
    Only prompts of token ids can be turned; without any, nothing is added. ``scenario``: its name, which the requests'
    ids begin with.
    """
    requests = tuple(islice(_requests(load, scenario), _SUPPLY))
    return replace(load, background=(*load.background, *requests), background_concurrency=IN_FLIGHT)


def _requests(load: Phase, scenario: str) -> Iterator[Request]:
    asked = [one for one in load.requests if one.continues is None and _turned(one, 0)]
    numbers = count()
    for turn, one in zip(numbers, cycle(asked), strict=False):
        yield replace(
            one,
            request_id=f"{scenario}-churn-{turn:04d}",
            prompt=_turned(one, 1 + turn // len(asked)),
            sampling=replace(one.sampling, max_tokens=1, min_tokens=0, n=None),
            route=Route.PREFILL,
            cache_salt=f"{one.cache_salt}-churn",
            leaves=None,
            purpose=Purpose.BACKGROUND,
        )


def _turned(request: Request, by: int) -> tuple[int, ...]:
    """The prompt backwards, beginning ``by`` tokens later; empty if it is not made of token ids."""
    prompt = request.prompt
    ids = tuple(one for one in prompt if isinstance(one, int)) if isinstance(prompt, tuple) else ()
    if not ids or len(ids) < len(prompt):
        return ()
    start = by % len(ids)
    return (*ids[start:], *ids[:start])[::-1]
