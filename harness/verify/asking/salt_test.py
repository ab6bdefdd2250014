"""Does a ``cache_salt`` isolate? One prompt under one salt and under another, on every server that is asked directly.

Control requests, references and forcings read no KV of the load because their salt is their own. A gateway that drops
the field, or a tier that does not know it, makes that untrue, and nothing in their answers shows it: so it is tested at
the start of a run, on prompts of its own, before anything is counted. ``harness/verify/judging/salts.py`` judges it.

1. ``kept``      the prompt under salt A, so that its blocks are cached
2. ``again``     the same once more: the cache must hit, or the test shows nothing
3. ``forced``    the same, with ``prompt_logprobs``: does a teacher forcing read a cache whose salt it has? One that
                 does not is trusted wherever salts do not isolate
4. ``other``     the prompt under salt B: whatever is hit now was cached under another salt. Last, so that tiers have
                 had time to store the blocks

Then the same is asked of the whole path: one prompt through the proxy as the load goes, under one salt, as often as is
needed to reach every server, and once under another. A gateway that drops the field there leaves the load's blocks
without a salt, where another run finds them. What was hit is told by counters alone (a proxy's usage may be either
server's), and judged by ``harness/checkers/leftovers.py``.

What was hit of each server is told by the answers' usage. Where a server's usage does not tell it, counters are read
around the requests: ``again`` is then asked a second time. Where the deployment does not come to rest for that
(somebody else's requests are under way) the test ends: counters would tell nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.facts import Deployment, Role
from harness.history import Entry, History, Outcome, PhaseStarted, Scraped, ScrapeFailed, Sent
from harness.scenario import Condition, Phase, Purpose, Request, Route, Sampling, Scenario
from harness.verify.asking.outputs import VERIFICATION

SALTS = "salts"
_BLOCKS = 4
_BLOCK = 16
_LEAST_TOKENS = 544
"""Of a prompt that may go to a tier that nobody knows: two of the larger chunks in use, of 256 tokens."""
_ORDINARY = range(100, 1000)
"""Token ids that every vocabulary has."""
_PURPOSE = (
    "Whether one prompt asked under two salts is computed twice: else control requests may read what was transferred."
)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A server that is asked directly."""

    name: str
    route: Route
    index: int
    tokens: int
    """Of the prompt: several blocks and one token more."""


def salt_test(
    deployment: Deployment, history: Callable[[], History], *, salt: str, reference: bool = False
) -> Iterator[Scenario]:
    """The scenarios of the test, to be run one by one; none where the history has one already.

    ``reference``: whether a server outside the deployment is relied on, too.
    """
    subjects = tuple(_subjects(deployment, reference=reference))
    if not subjects or any(operation.request.purpose is Purpose.SALT_TEST for operation in history().operations()):
        return
    yield Scenario(
        VERIFICATION,
        _PURPOSE,
        tuple(_phase(subjects, which, salt) for which in (Condition.SALT_FIRST, Condition.SALT_AGAIN)),
    )
    told = [
        o
        for o in history().operations(phase=_name(Condition.SALT_AGAIN))
        if o.request.purpose is Purpose.SALT_TEST and o.outcome is Outcome.OK
    ]
    if not told:
        return  # nobody answers such requests: there is nothing to find out
    watched = not all(o.ended.usage is not None and o.ended.usage.cached_tokens is not None for o in told)
    for which in ((Condition.SALT_COUNTED,) if watched else ()) + (Condition.SALT_FORCED, Condition.SALT_OTHER):
        yield Scenario(VERIFICATION, _PURPOSE, (_phase(subjects, which, salt, watched=watched),))
        if watched and _restless(history(), which):
            return
    if deployment.proxy_url is not None:
        tokens = max(subject.tokens for subject in subjects)
        phases = tuple(
            _path_phase(deployment, which, tokens, salt) for which in (Condition.SALT_PROXY, Condition.SALT_PROXY_OTHER)
        )
        yield Scenario(VERIFICATION, _PURPOSE, phases)


def salt_entries(history: History) -> tuple[Entry, ...]:
    """What a run's test of salts left, for another run on the same deployment that has none of its own."""
    tests = {o.request.request_id for o in history.operations() if o.request.purpose is Purpose.SALT_TEST}
    phases = {o.sent.phase for o in history.operations() if o.request.purpose is Purpose.SALT_TEST}

    def belongs(entry: Entry) -> bool:
        if isinstance(entry, PhaseStarted | Sent | Scraped | ScrapeFailed):
            return entry.phase in phases
        return getattr(entry, "request_id", None) in tests

    return tuple(entry for entry in history.entries if belongs(entry))


def _subjects(deployment: Deployment, *, reference: bool) -> Iterator[_Subject]:
    for role, route in ((Role.PREFILL, Route.PREFILL), (Role.DECODE, Route.DECODE)):
        for index, server in enumerate(deployment.of(role)):
            wanted = [_BLOCKS * (server.block_size or _BLOCK), 2 * (server.offload_block_size or 0)]
            wanted += [_LEAST_TOKENS] if server.unknown_connectors else []
            room = (server.max_model_len or max(wanted) + 2) - 2
            tokens = min(max(wanted), room) + 1
            # A server without a prefix cache has none that could hit; its tier is asked by its own salted hashes.
            if tokens > (server.block_size or _BLOCK) and server.prefix_caching is not False:
                yield _Subject(server.name, route, index, tokens)
    if reference:
        yield _Subject(str(Route.REFERENCE), Route.REFERENCE, 0, _LEAST_TOKENS)


def _name(which: Condition) -> str:
    return str(which)


def _phase(subjects: Sequence[_Subject], which: Condition, salt: str, *, watched: bool = False) -> Phase:
    requests = tuple(_request(subject, which, salt) for subject in subjects)
    return Phase(_name(which), requests, len(requests), counted=False, watched=watched)


def _request(subject: _Subject, which: Condition, salt: str) -> Request:
    drawn = np.random.default_rng(list(f"{salt}-{subject.name}".encode()))
    return Request(
        f"{_name(which)}-{subject.name}",
        tuple(int(token) for token in drawn.integers(_ORDINARY.start, _ORDINARY.stop, subject.tokens)),
        Sampling(max_tokens=1, ignore_eos=True, prompt_logprobs=1 if which is Condition.SALT_FORCED else None),
        route=subject.route,
        server=subject.index,
        stream=False,
        cache_salt=f"{salt}-{SALTS}-{'other' if which is Condition.SALT_OTHER else 'one'}",
        purpose=Purpose.SALT_TEST,
        condition=which,
    )


def _path_phase(deployment: Deployment, which: Condition, tokens: int, salt: str) -> Phase:
    """Through the proxy, one after another: twice as often as there are servers of a role, or once."""
    most = max(len(deployment.of(role)) for role in Role)
    times = 1 if which is Condition.SALT_PROXY_OTHER or most == 1 else 2 * most
    drawn = np.random.default_rng(list(f"{salt}-path".encode()))
    prompt = tuple(int(token) for token in drawn.integers(_ORDINARY.start, _ORDINARY.stop, tokens))
    requests = tuple(
        Request(
            f"{_name(which)}-{number}",
            prompt,
            Sampling(max_tokens=1, ignore_eos=True),
            cache_salt=f"{salt}-{SALTS}-{which}",
            purpose=Purpose.SALT_TEST,
            condition=which,
        )
        for number in range(times)
    )
    return Phase(_name(which), requests, 1, counted=False, watched=which is Condition.SALT_PROXY_OTHER)


def _restless(history: History, which: Condition) -> bool:
    readings = history.scrapes(scenario=VERIFICATION, phase=_name(which), label="watched-after")
    return not readings or not all(reading.settled for reading in readings.values())
