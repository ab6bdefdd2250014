"""Probes of the caches: whether the blocks that the load has left there are those of their prompts.

A probe is a prefix of a served prompt, some whole blocks and a token, with the one token that the server answered. What
it should have answered is told by

1. the probe's own teacher forcing, where there is one;
2. the teacher forcing of the request whose prompt it begins: with ``prompt_logprobs`` it tells the best tokens after
   every beginning of that prompt;
3. the same probe's answer by the other server, whose cache was filled by another way.

By 2 and 3 two or three tokens are known, with their log-probabilities. An answer that is none of them, or that they say
to be wrong, is *doubted*: it asks for 1 before anybody is accused, and until then is not verified.

Of one prompt the prefixes tell where it begins to be wrong: that of c blocks reads the first c of them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.facts import Deployment, serving
from harness.history import History, Operation, Outcome
from harness.scenario import Condition, Purpose, Route
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.forcing import Forced, beside_named, force, is_finite
from harness.verify.judging.hits import ROLES

Tokens = tuple[int, ...]
Named = Mapping[int, float]
"""Log-probability by token id."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A probe and what it is judged by."""

    probe: Operation
    beside: Forced | None
    """None: nothing tells what is right, or the answer is none of the tokens that are known."""
    certain: bool
    """Whether it is the probe's own forcing."""
    known: bool
    """Whether anything at all tells what is right."""


def read_probes(history: History, asked: Mapping[str, Sequence[Operation]]) -> tuple[Reading, ...]:
    """Every completed probe, in the order sent; ``asked``: all forcings, by the request that they are for."""
    probes = [o for o in history.operations() if o.request.purpose is Purpose.PROBE and o.outcome is Outcome.OK]
    twins = {_place(probe): probe for probe in reversed(probes)}
    return tuple(_read(probe, asked, twins) for probe in probes)


Place = tuple[str | None, Tokens, Route]


def _place(probe: Operation) -> Place:
    return probe.request.cache_salt, probe.prompt_token_ids or (), probe.request.route


def _read(probe: Operation, asked: Mapping[str, Sequence[Operation]], twins: Mapping[Place, Operation]) -> Reading:
    if own := asked.get(probe.request.request_id):
        beside = force(probe, own)
        if not isinstance(beside, str):
            return Reading(probe, beside[0], certain=True, known=True)
    named = _named(probe, asked, twins)
    served = next((choice.logprobs[0] for choice in probe.ended.choices if choice.logprobs), None)
    if named is None or served is None:
        return Reading(probe, None, certain=False, known=False)
    return Reading(probe, beside_named(served, named), certain=False, known=True)


def _named(
    probe: Operation, asked: Mapping[str, Sequence[Operation]], twins: Mapping[Place, Operation]
) -> Named | None:
    """The best tokens after the probe's prompt, as somebody else says."""
    prompt = probe.prompt_token_ids or ()
    for forcing in asked.get(probe.request.about or "", ()):
        told = forcing.ended.prompt_logprobs or ()
        sent = forcing.request.prompt
        place = told[len(prompt)] if len(prompt) < len(told) and sent[: len(prompt)] == prompt else None
        if place is not None and is_finite(place) and len(place.named) > 1:
            return place.named
    salt, _, route = _place(probe)
    other = twins.get((salt, prompt, Route.PREFILL if route is Route.DECODE else Route.DECODE))
    logprobs = other.ended.choices[0].logprobs if other is not None and other.ended.choices else ()
    first = logprobs[0] if logprobs else None
    return first.named if first is not None and is_finite(first) and len(first.named) > 1 else None


def judged_probe(reading: Reading, compared: Compared) -> Compared:
    """Who is not accused by his own forcing is not accused; ``compared``: by the noise floor."""
    if not reading.certain and compared.match is Match.MISMATCH:
        return Compared(compared.request_id, Match.UNVERIFIED, f"not forced again: {compared.text}")
    return compared


def without_truth(reading: Reading) -> Compared:
    """Of a probe that has nothing beside it."""
    who = reading.probe.request.request_id
    if reading.known:
        return Compared(who, Match.UNVERIFIED, "its token is none of those that are known to be likely there")
    return Compared(who, Match.UNSAMPLED, "neither its prompt's forcing nor another server tells what is right")


# --- what they come to ---


@dataclass(frozen=True, slots=True)
class Damaged:
    """What the probes of one prompt say of one cache."""

    source: str
    route: Route
    """Which kind of server holds it."""
    cache: Condition | None
    """Which of its caches."""
    server: int | None
    """Which of the route's servers; None where nobody wrote it down."""
    wrong: tuple[int, ...]
    """Prefixes that were answered wrong, in tokens; ascending."""
    right: tuple[int, ...]
    text: str
    """Of the first of the wrong ones."""

    @property
    def server_name(self) -> str | None:
        """Of the server whose cache it is; None where nobody wrote it down."""
        return None if self.server is None else f"{self.route}-{self.server}"

    def block(self, block_size: int | None) -> int | None:
        """The first wrong block, counted from 1; None where the prefixes do not tell which it is."""
        first, last = self._span(block_size) if block_size else (0, 1)
        return first if first == last else None

    def where(self, block_size: int | None) -> str:
        """The same in words, as closely as the prefixes tell."""
        if block_size is None:
            return f"the first {self.wrong[0]} tokens"
        first, last = self._span(block_size)
        return f"block {first}" if first == last else f"one of blocks {first} to {last}"

    def _span(self, block_size: int) -> tuple[int, int]:
        """The blocks of which one is the first wrong one."""
        right = max((tokens for tokens in self.right if tokens < self.wrong[0]), default=0)
        return right // block_size + 1, self.wrong[0] // block_size


def damaged_prompts(readings: Sequence[Reading], compared: Sequence[Compared]) -> Iterator[Damaged]:
    """Prompts with a prefix that was answered wrong, by cache, in the order in which they were probed."""
    found: dict[tuple[str, Route, Condition | None, int | None], list[tuple[int, Compared]]] = {}
    for reading, one in zip(readings, compared, strict=True):
        request = reading.probe.request
        if request.about is not None and one.match not in (Match.UNSAMPLED, Match.UNVERIFIED):
            key = request.about, request.route, request.condition, request.server
            found.setdefault(key, []).append((len(request.prompt) - 1, one))
    for (source, route, cache, server), places in found.items():
        wrong = sorted((tokens, one.text) for tokens, one in places if one.match is Match.MISMATCH)
        right = sorted(tokens for tokens, one in places if one.match is not Match.MISMATCH)
        if wrong:
            yield Damaged(source, route, cache, server, tuple(tokens for tokens, _ in wrong), tuple(right), wrong[0][1])


def possible_prefixes(deployment: Deployment, history: History) -> Counter[str]:
    """Prefixes of the served prompts, each once, by the name of the server in whose cache they may be."""
    size = max((server.block_size or 0 for server in deployment.servers), default=0)
    found: set[tuple[str, int]] = set()
    for operation in history.operations(route=Route.PROXY) if size else ():
        request = operation.request
        if operation.outcome is Outcome.OK and request.of_load:
            keys = list(_keys(operation, size))
            found.update((name, key) for name in _holders(deployment, operation) for key in keys)
    return Counter(name for name, _ in found)


def _keys(operation: Operation, size: int) -> Iterator[int]:
    """A hash for each prefix of its prompt that is whole blocks and leaves a token."""
    prompt, key = operation.prompt_token_ids or (), hash(operation.request.cache_salt)
    for start in range(0, len(prompt) - size, size):
        key = hash((key, prompt[start : start + size]))
        yield key


def _holders(deployment: Deployment, operation: Operation) -> Iterator[str]:
    """The server of either role that served it, or all that may have."""
    ended = operation.ended
    for role, url in ((ROLES[Route.DECODE], ended.decode_server), (ROLES[Route.PREFILL], ended.prefill_server)):
        servers = deployment.of(role)
        index = serving(servers, url)
        yield from (server.name for server in (servers if index is None else (servers[index],)))
