"""Whether a ``cache_salt`` isolates: what the test at the start of a run shows of each server.

The test is made by :mod:`harness.verify.asking.salt_test`.

A prompt that was asked under one salt is asked under another. If some of it is not computed anew, its KV came out of a
cache that heeds no salt: vLLM's documented isolation is not there, be it that a gateway in front of the server drops
the field or that a tier does not know it. The load's answers may be right all the same, so that this alone is unknown
and not invalid; but what relies on salts cannot be trusted:

control requests and references   may have read KV of the load
teacher forcings                  may have, too, unless one was seen to read no cache: asked under the very salt that
                                  was cached, with ``prompt_logprobs``, it found nothing

Where the test could not be made, or shows nothing (nothing was cached, counters that cannot be read, somebody else's
requests), salts are taken to isolate, as they are documented to, and that is said.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.facts import Deployment
from harness.history import History, Operation, Outcome
from harness.memo import once
from harness.observe.watched import grown
from harness.scenario import Condition, Purpose, Route
from harness.verdict import Check, Finding, Verdict
from harness.verify.judging.salted_path import dropped_on_the_way

# As harness/verify/asking/salt_test.py names the requests.
_SOURCES = (
    ("prompt_tokens", "local_cache_hit", "external_kv_transfer"),
    ("prefix_queries", "prefix_hits", "external_hits"),
)


@dataclass(frozen=True, slots=True)
class SaltRead:
    """What one server found of one prompt; tokens, or in words why that is not known."""

    server: str
    """Its name; ``reference`` for the one outside the deployment."""
    route: Route
    tokens: int
    """Of the prompt."""
    again: int | str
    """Found when it was asked a second time under the same salt."""
    other: int | str
    """Found under another salt."""
    forced: int | str
    """Found by a teacher forcing under the same salt."""

    @property
    def ignored(self) -> bool:
        """Whether it answered from what had been cached under another salt."""
        return isinstance(self.other, int) and self.other > 0

    @property
    def hits(self) -> bool:
        """Whether it caches at all, and was seen to."""
        return isinstance(self.again, int) and self.again > 0

    @property
    def isolates(self) -> bool:
        """Whether its cache hit under one salt, and did not under another."""
        return self.hits and self.other == 0

    @property
    def forces_clean(self) -> bool:
        """Whether a teacher forcing read no cache although there was something to read."""
        return self.hits and self.forced == 0

    @property
    def why_untested(self) -> str:
        """Why neither is known."""
        if self.hits:
            return str(self.other)
        return "nothing was cached that could have been hit" if self.again == 0 else str(self.again)


@once
def read_salts(history: History) -> tuple[SaltRead, ...]:
    """One for each server that was asked."""
    asked: dict[tuple[Route, int], dict[Condition, Operation]] = {}
    for operation in history.operations():
        request = operation.request
        if request.purpose is Purpose.SALT_TEST and request.condition and request.route is not Route.PROXY:
            asked.setdefault((request.route, request.server or 0), {})[request.condition] = operation
    return tuple(_read(history, route, index, found) for (route, index), found in asked.items())


def _read(history: History, route: Route, index: int, asked: Mapping[Condition, Operation]) -> SaltRead:
    name = str(route) if route is Route.REFERENCE else f"{route}-{index}"
    usage = any(_cached(operation) is not None for operation in asked.values())
    again = asked.get(Condition.SALT_AGAIN if usage else Condition.SALT_COUNTED)
    others = (asked.get(condition) for condition in (Condition.SALT_OTHER, Condition.SALT_FORCED))
    found = [_found(history, name, one, usage=usage) for one in (again, *others)]
    return SaltRead(name, route, max(len(one.request.prompt) for one in asked.values()), *found)


def _found(history: History, server: str, operation: Operation | None, *, usage: bool) -> int | str:
    """Tokens of the request's prompt that were not computed for it, or why nobody knows."""
    if operation is None:
        return "its usage does not tell what was cached, and the deployment did not come to rest for its counters"
    if operation.outcome is not Outcome.OK:
        return f"{operation.request.request_id} was not answered: {operation.ended.cause}"
    if usage:
        return _cached(operation) or 0  # a server that tells it leaves a 0 out
    return _by_counters(history, server, operation)


def _cached(operation: Operation) -> int | None:
    return None if operation.ended.usage is None else operation.ended.usage.cached_tokens


def _by_counters(history: History, server: str, operation: Operation) -> int | str:
    """The request was the only one of the phase on its server."""
    sent, tokens = operation.sent, len(operation.request.prompt)
    grew, why = grown(history, sent.scenario, sent.phase, server), ""
    for asked, local, external in _SOURCES:
        there, given = grew.of(local), grew.of(external) or 0
        if grew.of(asked) is None or there is None:
            why = why or grew.why(asked) or grew.why(local)
        elif grew.of(asked) == tokens:
            return int(there + given)
        else:
            why = f"it counted {grew.of(asked):,.0f} prompt tokens where it was asked for {tokens:,}"
    return why


# --- what rests on it ---


def untrusted(history: History, route: Route) -> str:
    """Why requests that rely on their own salt on this route are not trusted; empty where they are."""
    ignoring = [read.server for read in read_salts(history) if read.route is route and read.ignored]
    return f"{' and '.join(ignoring)} ignored its cache_salt" if ignoring else ""


def untrusted_forcing(history: History, route: Route) -> str:
    """Like ``untrusted``, for teacher forcings: those that read no cache need no salt."""
    ignoring = [read for read in read_salts(history) if read.route is route and read.ignored and not read.forces_clean]
    return f"{' and '.join(read.server for read in ignoring)} ignored its cache_salt" if ignoring else ""


def tested(deployment: Deployment, history: History) -> bool:
    """Whether the test showed anything of any server: else there is nothing to be judged."""
    return any(read.ignored or _isolates(deployment, read) for read in read_salts(history))


def salts(deployment: Deployment, history: History) -> Check:
    """A prompt asked under two salts is computed twice, on every server of which the test showed anything."""
    reads = read_salts(history)
    ignoring = [read for read in reads if read.ignored]
    isolating = [read.server for read in reads if _isolates(deployment, read)]
    notes = (*untested(deployment, history), *_on_the_way(deployment, history))
    if ignoring:
        findings = tuple(Finding(read.server, _words(read), server=read.server) for read in ignoring)
        others = f" (so does {', '.join(read.server for read in ignoring[1:])})" if ignoring[1:] else ""
        summary = f"{findings[0].subject} {findings[0].text}{others}: {_CONSEQUENCE}"
        return Check("salts", Verdict.UNKNOWN, summary, findings=findings, notes=notes)
    if not isolating:
        return Check("salts", Verdict.UNKNOWN, next(iter(notes), "no server was asked under two salts"))
    summary = f"a prompt asked again under another cache_salt was computed anew on {', '.join(isolating)}"
    return Check("salts", Verdict.VALID, summary, notes=notes)


def _on_the_way(deployment: Deployment, history: History) -> Iterator[str]:
    """Nothing that is judged relies on it but predictions of counters (leftovers.py)."""
    if found := dropped_on_the_way(deployment, history):
        yield (
            f"something between the clients and {' and '.join(found)} drops cache_salt: a prompt that was asked "
            "through the proxy under a new salt came out of a cache. Give each run a --seed of its own"
        )


def _isolates(deployment: Deployment, read: SaltRead) -> bool:
    """Not told by several engines behind one URL: another one may have been asked, which had nothing cached."""
    return read.isolates and not _several(deployment, read)


def _several(deployment: Deployment, read: SaltRead) -> bool:
    return any(server.name == read.server and server.engines > 1 for server in deployment.servers)


_CONSEQUENCE = (
    "control requests, which are to be independent of the KV transfer, may have read what was transferred, and nothing "
    "is judged by them. Does a gateway in front of the server drop the field, or a cache behind it not know it?"
)


def _words(read: SaltRead) -> str:
    return f"ignores cache_salt: of {read.tokens:,} tokens asked under a new salt {read.other:,} came out of a cache"


def untested(deployment: Deployment, history: History) -> Iterator[str]:
    """A line for each server of which nothing is known."""
    for read in read_salts(history):
        if not (read.ignored or _isolates(deployment, read)):
            why = "several engines share its URL" if _several(deployment, read) else read.why_untested
            yield f"whether {read.server} keeps cache salts apart was not tested ({why})"
