"""Probes of the caches: whether the blocks that the load left there have the right KV.

A probe is a prefix of a served prompt (whole blocks and one token), sent again for one output token. The right token is
known from

1. the probe's own teacher forcing, if there is one;
2. the teacher forcing of the request that has the whole prompt: with ``prompt_logprobs`` it reports the best tokens
   after every prefix;
3. the answer to the same probe by the other server, whose cache was filled in another way.

Sources 2 and 3 give the log-probabilities of two or three tokens. A probe that is answered with another token, or with
one that is wrong by these log-probabilities, is *doubted*: it is unverified until it has its own teacher forcing.

The prefix of c blocks reads the first c blocks of the prompt, so wrong prefixes show where the wrong blocks begin.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.facts import Deployment, serving
from harness.history import History, Operation, Outcome
from harness.scenario import Condition, Purpose, Request, Route
from harness.verify.judging.compare_forced import Bounds, compare_forced
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.forcing import Forced, compare_with_forcing, compare_with_known, is_finite
from harness.verify.judging.hits import ROLES, largest_block_size
from harness.verify.judging.load_part import asked_of, load_of
from harness.verify.judging.prefixes import Numbers, hashes_of_load

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """A completed probe and what it is compared with."""

    operation: Operation
    forced: Forced | None
    """Its output token compared with the known ones; None if none are known or it is not among them."""
    certain: bool
    """Whether it has its own teacher forcing."""
    known: bool
    """Whether any right token is known."""

    @property
    def request(self) -> Request:
        """The request of the probe."""
        return self.operation.request


def read_probes(history: History, forcings: Mapping[str, Sequence[Operation]]) -> tuple[Probe, ...]:
    """Every completed probe, in the order sent. ``forcings``: teacher forcings by the id of the forced request."""
    probes = [o for o in asked_of(history) if o.request.purpose is Purpose.PROBE and o.outcome is Outcome.OK]
    by_place = {_place(probe): probe for probe in reversed(probes)}
    return tuple(_read(probe, forcings, by_place) for probe in probes)


Place = tuple[str | None, Tokens, Route]
"""The salt and the tokens of a prefix, and the route by which it was sent."""


def _place(probe: Operation) -> Place:
    return probe.request.cache_salt, probe.prompt_token_ids or (), probe.request.route


def _read(probe: Operation, forcings: Mapping[str, Sequence[Operation]], by_place: Mapping[Place, Operation]) -> Probe:
    if own := forcings.get(probe.request.request_id):
        forced = compare_with_forcing(probe, own)
        if not isinstance(forced, str):
            return Probe(probe, forced[0], certain=True, known=True)
    known = _known_tokens(probe, forcings, by_place)
    served = next((choice.logprobs[0] for choice in probe.ended.choices if choice.logprobs), None)
    if known is None or served is None:
        return Probe(probe, None, certain=False, known=False)
    return Probe(probe, compare_with_known(served, known), certain=False, known=True)


def _known_tokens(
    probe: Operation, forcings: Mapping[str, Sequence[Operation]], by_place: Mapping[Place, Operation]
) -> Mapping[int, float] | None:
    """Log-probabilities of the best tokens after the probe's prompt, by token id, from sources 2 and 3."""
    prompt = probe.prompt_token_ids or ()
    for forcing in forcings.get(probe.request.about or "", ()):
        rows, sent = forcing.ended.prompt_logprobs or (), forcing.request.prompt
        row = rows[len(prompt)] if len(prompt) < len(rows) and sent[: len(prompt)] == prompt else None
        if row is not None and is_finite(row) and len(row.named) > 1:
            return row.named
    salt, _, route = _place(probe)
    other = by_place.get((salt, prompt, Route.PREFILL if route is Route.DECODE else Route.DECODE))
    logprobs = other.ended.choices[0].logprobs if other is not None and other.ended.choices else ()
    first = logprobs[0] if logprobs else None
    return first.named if first is not None and is_finite(first) and len(first.named) > 1 else None


def compare_probe(probe: Probe, floor: Bounds | str | None) -> Compared:
    """Compare a probe. Without its own forcing, a wrong token is unverified and not a mismatch."""
    who = probe.request.request_id
    if probe.forced is None or floor is None:
        if probe.known:
            return Compared(who, Match.UNVERIFIED, "its token is none of the tokens that are known to be likely there")
        return Compared(who, Match.LEFT_OUT, "neither its prompt's forcing nor another server shows what is right")
    compared = compare_forced(probe.operation, (probe.forced,), floor)
    if not probe.certain and compared.match is Match.MISMATCH:
        return Compared(who, Match.UNVERIFIED, f"not teacher-forced by itself: {compared.text}")
    return compared


@dataclass(frozen=True, slots=True)
class DamagedPrompt:
    """A prompt with wrong blocks in a cache, as its probes show."""

    source: str
    """The request that has this prompt."""
    route: Route
    """The role of the server whose cache it is."""
    cache: Condition | None
    """The prefix cache or the offload tier."""
    server: int | None
    """The index of the server among the servers of the route; None if it was not recorded."""
    wrong: tuple[int, ...]
    """Lengths of the prefixes that were answered wrong, in tokens, ascending."""
    right: tuple[int, ...]
    """Lengths of the prefixes that were answered right."""
    text: str
    """What is wrong with the answer to the shortest wrong prefix, in words."""

    @property
    def server_name(self) -> str | None:
        """The name of the server; None if it was not recorded."""
        return None if self.server is None else f"{self.route}-{self.server}"

    def block(self, block_size: int | None) -> int | None:
        """The first wrong block, counted from 1; None if the prefixes leave several possible."""
        first, last = self._possible_blocks(block_size) if block_size else (0, 1)
        return first if first == last else None

    def where(self, block_size: int | None) -> str:
        """The first wrong block in words, or what is known of it."""
        if block_size is None:
            return f"the first {self.wrong[0]} tokens"
        first, last = self._possible_blocks(block_size)
        return f"block {first}" if first == last else f"one of blocks {first} to {last}"

    def _possible_blocks(self, block_size: int) -> tuple[int, int]:
        """The first and the last block that may be the first wrong one."""
        right = max((tokens for tokens in self.right if tokens < self.wrong[0]), default=0)
        return right // block_size + 1, self.wrong[0] // block_size


def damaged_prompts(probed: Iterable[tuple[Probe, Compared]]) -> Iterator[DamagedPrompt]:
    """The prompts with a prefix that was answered wrong, by cache, in the order in which they were probed."""
    found: dict[tuple[str, Route, Condition | None, int | None], list[tuple[int, Compared]]] = {}
    for probe, one in probed:
        request = probe.request
        if request.about is not None and one.match not in (Match.LEFT_OUT, Match.UNVERIFIED):
            key = request.about, request.route, request.condition, request.server
            found.setdefault(key, []).append((len(request.prompt) - 1, one))
    for (source, route, cache, server), prefixes in found.items():
        wrong = sorted((tokens, one.text) for tokens, one in prefixes if one.match is Match.MISMATCH)
        right = sorted(tokens for tokens, one in prefixes if one.match is not Match.MISMATCH)
        if wrong:
            lengths = tuple(tokens for tokens, _ in wrong)
            yield DamagedPrompt(source, route, cache, server, lengths, tuple(right), wrong[0][1])


def possible_prefixes(deployment: Deployment, history: History) -> Counter[str]:
    """How many different prefixes of served prompts each server's cache may have, by the name of the server."""
    size, load = largest_block_size(deployment), load_of(history)
    if not size:
        return Counter()
    found = hashes_of_load(load, size)
    groups: dict[tuple[str, ...], int] = {}
    servers = (
        tuple(_possible_servers(deployment, o)) if count else () for o, count in zip(load, found.counts, strict=True)
    )
    group = np.repeat([groups.setdefault(names, len(groups)) for names in servers], found.counts)
    names = dict.fromkeys(name for some in groups for name in some)
    held = {name: [number for some, number in groups.items() if name in some] for name in names}
    return +Counter({name: _different(found.hashes[np.isin(group, own)]) for name, own in held.items()})


def _different(hashes: Numbers) -> int:
    """How many different numbers there are."""
    every = np.sort(hashes)
    return int(np.count_nonzero(every[1:] != every[:-1])) + bool(len(every))


def _possible_servers(deployment: Deployment, operation: Operation) -> Iterator[str]:
    """The server of each role that served the operation, or all of the role if that was not recorded."""
    ended = operation.ended
    for role, url in ((ROLES[Route.DECODE], ended.decode_server), (ROLES[Route.PREFILL], ended.prefill_server)):
        servers = deployment.of(role)
        index = serving(servers, url)
        yield from (server.name for server in (servers if index is None else (servers[index],)))
