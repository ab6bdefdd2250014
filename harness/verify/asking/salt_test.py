"""Does ``cache_salt`` isolate? The salt test sends one prompt under two salts to every server that is asked directly.

Control requests, references and forcings read no KV of the load because each has its own salt. This fails if a gateway
drops the field or a tier ignores it, and no answer would show that. So salts are tested at the start of a run, with
prompts of the test's own. ``harness/verify/judging/salts.py`` gives the verdict.

1. ``salt-first``    the prompt under salt A, so that its blocks are cached
2. ``salt-again``    the same once more: the cache must hit, or the test shows nothing
3. ``salt-forced``   the same, with ``prompt_logprobs``: does a teacher forcing read a cache whose salt it has? If it
                     does not, forcings are trusted even on servers that ignore salts
4. ``salt-other``    the prompt under salt B: any hit was cached under another salt. This request comes last, so that
                     tiers have had time to store the blocks

Then the path through the proxy is tested: one prompt is sent under one salt as often as is needed to reach every
server, and once under another. If a gateway drops the field there, the load's blocks have no salt, and another run hits
them. Only counters show these hits, since a proxy's usage may be that of either server;
``harness/checkers/leftovers.py`` gives the verdict.

The usage in the answers shows the hits. If a server's usage does not report cached tokens, counters are read around the
requests; for this, the prompt is sent a third time under salt A (``salt-counted``). If the deployment does not settle
(because of another client's requests), the test ends, since counters would show nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.facts import Deployment, Role
from harness.history import Entry, History, PhaseStarted, Scraped, ScrapeFailed, Sent
from harness.scenario import Condition, Phase, Purpose, Request, Route, Sampling, Scenario
from harness.verify.asking.outputs import VERIFICATION, completed

_BLOCKS = 4
_BLOCK = 16
_LEAST_TOKENS = 544
"""Fewest tokens of a prompt for a tier of an unknown connector: two chunks of 256 tokens, the larger size in use."""
_ORDINARY = range(100, 1000)
"""Token ids that are in every vocabulary."""
_PURPOSE = "Whether a prompt is computed again under another salt: else control requests may read transferred KV."


@dataclass(frozen=True, slots=True)
class _Subject:
    """A server that is asked directly."""

    name: str
    route: Route
    index: int
    tokens: int
    """Tokens of the prompt: several blocks and one token."""


def salt_test(
    deployment: Deployment,
    history: Callable[[], History],
    *,
    salt: str,
    reference: bool = False,
    on_the_way: bool = True,
) -> Iterator[Scenario]:
    """The scenarios of the test, to be run one by one; none if the history has a test already.

    ``reference``: whether a server outside the deployment is tested, too. ``on_the_way``: whether the path through the
    proxy is.
    """
    subjects = tuple(_subjects(deployment, reference=reference))
    if not subjects or any(operation.request.purpose is Purpose.SALT_TEST for operation in history().operations()):
        return
    yield Scenario(
        VERIFICATION,
        _PURPOSE,
        tuple(_phase(subjects, which, salt) for which in (Condition.SALT_FIRST, Condition.SALT_AGAIN)),
    )
    answered = [o for o in completed(history(), Purpose.SALT_TEST) if o.request.condition is Condition.SALT_AGAIN]
    if not answered:
        # No server answered, so there is nothing to test.
        return
    watched = not all(o.ended.usage is not None and o.ended.usage.cached_tokens is not None for o in answered)
    for which in ((Condition.SALT_COUNTED,) if watched else ()) + (Condition.SALT_FORCED, Condition.SALT_OTHER):
        yield Scenario(VERIFICATION, _PURPOSE, (_phase(subjects, which, salt, watched=watched),))
        if watched and not _settled(history(), which):
            return
    if deployment.proxy_url is not None and on_the_way:
        tokens = max(subject.tokens for subject in subjects)
        phases = tuple(
            _path_phase(deployment, which, tokens, salt) for which in (Condition.SALT_PROXY, Condition.SALT_PROXY_OTHER)
        )
        yield Scenario(VERIFICATION, _PURPOSE, phases)


def salt_entries(history: History) -> tuple[Entry, ...]:
    """The entries of a run's test of salts, for the history of another run on the same deployment."""
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
            # A server without a prefix cache is not tested. Its tier is asked by salted hashes.
            if tokens > (server.block_size or _BLOCK) and server.prefix_caching is not False:
                yield _Subject(server.name, route, index, tokens)
    if reference:
        yield _Subject(str(Route.REFERENCE), Route.REFERENCE, 0, _LEAST_TOKENS)


def _phase(subjects: Sequence[_Subject], which: Condition, salt: str, *, watched: bool = False) -> Phase:
    requests = tuple(_request(subject, which, salt) for subject in subjects)
    return Phase(str(which), requests, len(requests), counted=False, watched=watched)


def _request(subject: _Subject, which: Condition, salt: str) -> Request:
    drawn = np.random.default_rng(list(f"{salt}-{subject.name}".encode()))
    return Request(
        f"{which}-{subject.name}",
        tuple(int(token) for token in drawn.integers(_ORDINARY.start, _ORDINARY.stop, subject.tokens)),
        Sampling(max_tokens=1, ignore_eos=True, prompt_logprobs=1 if which is Condition.SALT_FORCED else None),
        route=subject.route,
        server=subject.index,
        stream=False,
        cache_salt=f"{salt}-salts-{'other' if which is Condition.SALT_OTHER else 'one'}",
        purpose=Purpose.SALT_TEST,
        condition=which,
    )


def _path_phase(deployment: Deployment, which: Condition, tokens: int, salt: str) -> Phase:
    """Requests through the proxy, one after another: twice as many as servers of a role, or a single one."""
    most = max(len(deployment.of(role)) for role in Role)
    times = 1 if which is Condition.SALT_PROXY_OTHER or most == 1 else 2 * most
    drawn = np.random.default_rng(list(f"{salt}-path".encode()))
    prompt = tuple(int(token) for token in drawn.integers(_ORDINARY.start, _ORDINARY.stop, tokens))
    requests = tuple(
        Request(
            f"{which}-{number}",
            prompt,
            Sampling(max_tokens=1, ignore_eos=True),
            cache_salt=f"{salt}-salts-{which}",
            purpose=Purpose.SALT_TEST,
            condition=which,
        )
        for number in range(times)
    )
    return Phase(str(which), requests, 1, counted=False, watched=which is Condition.SALT_PROXY_OTHER)


def _settled(history: History, which: Condition) -> bool:
    readings = history.scrapes(scenario=VERIFICATION, phase=str(which), label="watched-after")
    return bool(readings) and all(reading.settled for reading in readings.values())
