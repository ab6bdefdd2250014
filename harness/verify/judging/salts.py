"""Whether servers keep cache salts apart, as the salt test at the start of a run shows.

The test (:mod:`harness.verify.asking.salt_test`) sends a prompt to a server under one salt, and again under another. If
some of it is not computed anew, its KV came from a cache that ignores the salt: vLLM's documented isolation is missing,
because a gateway in front of the server drops the field or because an offload tier does not use it. The load's answers
may still be right, so this makes the run unknown and not invalid. But some requests are no longer trusted:

control requests and references   They may have read KV of the load.
teacher forcings                  They may have read it too, unless the test showed that a teacher forcing reads no
                                  cache: sent under the salt of cached blocks, it hit nothing.

If the test could not be made or shows nothing (nothing was cached, counters could not be read, other requests were
served meanwhile), salts are assumed to isolate, as documented, and a note says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.facts import Deployment
from harness.history import History, Operation, Outcome
from harness.memo import once
from harness.observe.watched import grown
from harness.scenario import Condition, Purpose, Route
from harness.verdict import Check, Finding, Verdict
from harness.verify.judging.cache_counts import counted_cached_tokens, reported_cached_tokens
from harness.verify.judging.load_part import asked_of
from harness.verify.judging.salted_path import dropped_on_the_way


@dataclass(frozen=True, slots=True)
class SaltRead:
    """How many tokens of one prompt a server found in its caches, or in words why this is not known."""

    server: str
    """Its name; ``reference`` for the server outside the deployment."""
    route: Route
    tokens: int
    """Tokens of the prompt."""
    again: int | str
    """Tokens found when the prompt was sent again under the same salt."""
    other: int | str
    """Tokens found when the prompt was sent under another salt."""
    forced: int | str
    """Tokens found by a teacher forcing under the same salt."""

    @property
    def ignored(self) -> bool:
        """Whether the server answered from what was cached under another salt."""
        return isinstance(self.other, int) and self.other > 0

    @property
    def hits(self) -> bool:
        """Whether its caches were seen to hit at all."""
        return isinstance(self.again, int) and self.again > 0

    @property
    def isolates(self) -> bool:
        """Whether its caches hit under one salt, and not under another."""
        return self.hits and self.other == 0

    @property
    def forces_clean(self) -> bool:
        """Whether a teacher forcing read no cache although its prompt was cached."""
        return self.hits and self.forced == 0

    @property
    def why_untested(self) -> str:
        """Why it is not known whether the server ignores salts."""
        if self.hits:
            return str(self.other)
        return "nothing was cached that could have been hit" if self.again == 0 else str(self.again)


@once
def read_salts(history: History) -> tuple[SaltRead, ...]:
    """The result of the salt test on each tested server."""
    tests: dict[tuple[Route, int], dict[Condition, Operation]] = {}
    for operation in asked_of(history):
        request = operation.request
        if request.purpose is Purpose.SALT_TEST and request.condition and request.route is not Route.PROXY:
            tests.setdefault((request.route, request.server or 0), {})[request.condition] = operation
    return tuple(_read(history, route, index, sent) for (route, index), sent in tests.items())


def _read(history: History, route: Route, index: int, sent: Mapping[Condition, Operation]) -> SaltRead:
    name = str(route) if route is Route.REFERENCE else f"{route}-{index}"
    usage = any(reported_cached_tokens(operation) is not None for operation in sent.values())
    again = sent.get(Condition.SALT_AGAIN if usage else Condition.SALT_COUNTED)
    others = (sent.get(condition) for condition in (Condition.SALT_OTHER, Condition.SALT_FORCED))
    found = [_cached(history, name, one, usage=usage) for one in (again, *others)]
    return SaltRead(name, route, max(len(one.request.prompt) for one in sent.values()), *found)


def _cached(history: History, server: str, operation: Operation | None, *, usage: bool) -> int | str:
    """Cached prompt tokens of a request of the test, or why they are not known.

    ``usage``: whether the server reports them in usage; otherwise they are read from its counters.
    """
    if operation is None:
        return (
            "its usage reports no cached tokens, and its counters could not be read since the deployment did not settle"
        )
    if operation.outcome is not Outcome.OK:
        return f"{operation.request.request_id} was not answered: {operation.ended.cause}"
    if usage:
        return reported_cached_tokens(operation) or 0
    grew = grown(history, operation.sent.scenario, operation.sent.phase, server)
    return counted_cached_tokens(grew, len(operation.request.prompt), with_connectors=True)


def untrusted(history: History, route: Route) -> str:
    """Why requests on this route that rely on a salt of their own are not trusted; empty if they are trusted."""
    return _ignored(read for read in read_salts(history) if read.route is route)


def untrusted_forcing(history: History, route: Route) -> str:
    """Like ``untrusted``, for teacher forcings: a forcing that reads no cache needs no salt."""
    return _ignored(read for read in read_salts(history) if read.route is route and not read.forces_clean)


def _ignored(reads: Iterator[SaltRead]) -> str:
    servers = [read.server for read in reads if read.ignored]
    return f"{' and '.join(servers)} ignored its cache_salt" if servers else ""


def tested(deployment: Deployment, history: History) -> bool:
    """Whether the test had a result on any server; otherwise there is no check of salts."""
    return any(read.ignored or _isolates(deployment, read) for read in read_salts(history))


def salts(deployment: Deployment, history: History) -> Check:
    """A prompt sent under two salts is computed twice, on every server with a test result."""
    reads = read_salts(history)
    ignoring = [read for read in reads if read.ignored]
    isolating = [read.server for read in reads if _isolates(deployment, read)]
    notes = (*untested(deployment, history), *_on_the_way(deployment, history))
    if ignoring:
        findings = tuple(Finding(read.server, _text(read), server=read.server) for read in ignoring)
        others = f" (so does {', '.join(read.server for read in ignoring[1:])})" if ignoring[1:] else ""
        summary = f"{findings[0].subject}: {findings[0].text}{others}. {_CONSEQUENCE}"
        return Check("salts", Verdict.UNKNOWN, summary, findings=findings, notes=notes)
    if not isolating:
        return Check("salts", Verdict.UNKNOWN, next(iter(notes), "no prompt was sent to any server under two salts"))
    summary = f"a prompt sent again under another cache_salt was computed anew on {', '.join(isolating)}"
    return Check("salts", Verdict.VALID, summary, notes=notes)


def _on_the_way(deployment: Deployment, history: History) -> Iterator[str]:
    """A note if the path through the proxy drops salts. Only the prediction of counters needs them (leftovers.py)."""
    if found := dropped_on_the_way(deployment, history):
        yield (
            f"something between the clients and {' and '.join(found)} drops cache_salt: a prompt that was sent through "
            "the proxy under a new salt came out of a cache. Give each run a --seed of its own"
        )


def _isolates(deployment: Deployment, read: SaltRead) -> bool:
    """Whether the server keeps salts apart: not known if another engine at its URL may have got the second request."""
    return read.isolates and not _several_engines(deployment, read)


def _several_engines(deployment: Deployment, read: SaltRead) -> bool:
    return any(server.name == read.server and server.engines > 1 for server in deployment.servers)


_CONSEQUENCE = (
    "Control requests, which must not read transferred KV, may have read it from a cache, so that they are not used. "
    "Does a gateway in front of the server drop the field, or does a cache behind it not use it?"
)


def _text(read: SaltRead) -> str:
    return f"ignores cache_salt: of {read.tokens:,} tokens sent under a new salt, {read.other:,} came out of a cache"


def untested(deployment: Deployment, history: History) -> Iterator[str]:
    """A line for each server without a test result."""
    for read in read_salts(history):
        if not (read.ignored or _isolates(deployment, read)):
            why = "several engines share its URL" if _several_engines(deployment, read) else read.why_untested
            yield f"whether {read.server} keeps cache salts apart was not tested ({why})"
