"""What the wrong outputs of a run have in common, if that is improbable by chance. Pure.

A *trait* is true of some of the verified outputs: decoded by one server, sent early, a prompt of whole blocks. If wrong
outputs were drawn at random from all verified ones, the number with the trait would have a hypergeometric distribution.
A trait is reported if the probability of the number found, or a larger one, is at most MAX_CHANCE, after multiplication
by the number of traits that were tried (Bonferroni), and if at least MIN_WRONG outputs are wrong. Of each group of
traits (servers, place in the run, length, partial last block, beginning, damaged block) the most improbable one is
reported.

Two traits have other distributions. That wrong outputs are neighbours: w of n outputs lie within s in a row with
probability n C(s-1, w-1) / C(n, w) at most (choose the first of them, then the others behind it). Which block is the
first wrong one: taken as drawn evenly from each prompt's whole blocks, as for damage that strikes one block at random.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, lgamma, prod

from harness.facts import Deployment, Role, serving
from harness.history import History, Operation
from harness.verify.judging.compared import RIGHT, Compared, Match

MAX_CHANCE = 1e-3
"""The largest probability by chance at which a pattern is reported: one run in a thousand that has wrong outputs."""
MIN_WRONG = 4
"""Fewest wrong outputs. Three may have anything in common."""
_SHARES = (0.1, 0.25, 0.5)
"""Shares of the verified outputs that count as early, late, long or short."""

Trait = Callable[[Operation], bool]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Something that wrong outputs have in common."""

    family: str
    text: str
    chance: float
    """Probability by chance, before the number of traits that were tried is taken into account."""


def said_patterns(
    deployment: Deployment,
    history: History,
    compared: Sequence[Compared],
    block_size: int | None,
    first_wrong: Mapping[str, int],
) -> Iterator[str]:
    """A sentence for each pattern.

    ``first_wrong``: the number of the first wrong block of a prompt, from 1, by request id, where it is known.
    """
    operations = {o.request.request_id: o for o in history.operations()}
    verified = [operations[one.request_id] for one in compared if one.match in (*RIGHT, Match.MISMATCH)]
    wrong = {one.request_id for one in compared if one.match is Match.MISMATCH}
    if not MIN_WRONG <= len(wrong) < len(verified):
        return
    tried = [
        *_of_traits(_Outputs(verified, wrong), _traits(deployment, verified, block_size)),
        *_of_neighbours(verified, wrong),
        *_of_blocks([operations[who] for who in sorted(wrong & first_wrong.keys())], first_wrong, block_size),
    ]
    for family in dict.fromkeys(one.family for one in tried):
        best = min((one for one in tried if one.family == family), key=lambda one: one.chance)
        if (chance := best.chance * len(tried)) <= MAX_CHANCE:
            yield f"{best.text} (probability by chance: {chance:.0e})"


@dataclass(frozen=True, slots=True)
class _Outputs:
    verified: Sequence[Operation]
    wrong: Collection[str]


def _of_traits(outputs: _Outputs, traits: Iterable[tuple[str, str, Trait]]) -> Iterator[Pattern]:
    for family, words, trait in traits:
        having = [one.request.request_id for one in outputs.verified if trait(one)]
        both = sum(who in outputs.wrong for who in having)
        # A trait of all outputs, or of none, tells nothing.
        if 0 < len(having) < len(outputs.verified):
            chance = at_least(both, len(outputs.wrong), len(having), len(outputs.verified))
            did = "did" if words.startswith(("had", "began")) else "were"
            subject = f"{_of(both, len(outputs.wrong))} wrong outputs {words}"
            text = f"{subject}, as {did} {len(having):,} of {len(outputs.verified):,} verified ones"
            yield Pattern(family, text, chance)


def _traits(
    deployment: Deployment, verified: Sequence[Operation], block_size: int | None
) -> Iterator[tuple[str, str, Trait]]:
    """Family, words and test of each trait."""
    yield from _servers(deployment, verified)
    count = len(verified)
    place = {one.request.request_id: index for index, one in enumerate(verified)}
    by_length = sorted(verified, key=_length)
    for share in _SHARES:
        size = int(share * count)
        yield "place", f"were among the first {size:,}", _below(place, size)
        yield "place", f"were among the last {size:,}", _from(place, count - size)
        if size:
            most, least = _length(by_length[size - 1]), _length(by_length[-size])
            yield "length", f"had prompts of at most {most:,} tokens", _shorter(most)
            yield "length", f"had prompts of at least {least:,} tokens", _longer(least)
    if block_size:
        yield "tail", f"had prompts of whole blocks of {block_size} tokens", _rest(block_size, 0)
        yield "tail", f"had prompts of whole blocks of {block_size} tokens and one token more", _rest(block_size, 1)
        repeated = _repeated_beginnings(verified, block_size)
        words = "began with a block that an earlier prompt has too"
        yield "beginning", words, lambda one: one.request.request_id in repeated


def _servers(deployment: Deployment, verified: Sequence[Operation]) -> Iterator[tuple[str, str, Trait]]:
    prefills = sorted({one.ended.prefill_server for one in verified if one.ended.prefill_server})
    decodes = sorted({one.ended.decode_server for one in verified if one.ended.decode_server})
    decoded = {url: f"decoded by {_name(deployment, Role.DECODE, url)}" for url in decodes}
    prefilled = {url: f"prefilled by {_name(deployment, Role.PREFILL, url)}" for url in prefills}
    # A trait of a single server would be one of all outputs, or of those whose server was recorded.
    if len(decodes) > 1:
        yield from (("servers", f"were {words}", _on(None, url)) for url, words in decoded.items())
    if len(prefills) > 1:
        yield from (("servers", f"were {words}", _on(url, None)) for url, words in prefilled.items())
    if len(prefills) > 1 and len(decodes) > 1:
        for one, other in product(prefills, decodes):
            yield "servers", f"were {prefilled[one]} and {decoded[other]}", _on(one, other)


def _name(deployment: Deployment, role: Role, url: str) -> str:
    servers = deployment.of(role)
    index = serving(servers, url)
    return url if index is None else servers[index].name


def _on(prefill: str | None, decode: str | None) -> Trait:
    return lambda one: (prefill in (None, one.ended.prefill_server)) and (decode in (None, one.ended.decode_server))


def _below(place: Mapping[str, int], end: int) -> Trait:
    return lambda one: place[one.request.request_id] < end


def _from(place: Mapping[str, int], start: int) -> Trait:
    return lambda one: place[one.request.request_id] >= start


def _shorter(most: int) -> Trait:
    return lambda one: _length(one) <= most


def _longer(least: int) -> Trait:
    return lambda one: _length(one) >= least


def _rest(block_size: int, rest: int) -> Trait:
    return lambda one: _length(one) % block_size == rest


def _length(one: Operation) -> int:
    return len(one.prompt_token_ids or ())


def _repeated_beginnings(verified: Sequence[Operation], block_size: int) -> set[str]:
    """Outputs that may have found their first block in the prefix cache: the same server decoded it before."""
    seen: set[tuple[object, ...]] = set()
    found: set[str] = set()
    for one in verified:
        prompt = one.prompt_token_ids or ()
        block = (one.ended.decode_server, one.request.cache_salt, prompt[:block_size])
        if len(prompt) > block_size and block in seen:
            found.add(one.request.request_id)
        seen.add(block)
    return found


def _of_neighbours(verified: Sequence[Operation], wrong: Collection[str]) -> Iterator[Pattern]:
    places = [index for index, one in enumerate(verified) if one.request.request_id in wrong]
    span = places[-1] - places[0] + 1
    ways = _log_ways(span - 1, len(places) - 1) - _log_ways(len(verified), len(places))
    chance = min(1.0, len(verified) * exp(ways))
    together = f"{span:,} verified ones that were sent in a row, of {len(verified):,}"
    text = f"all {len(places):,} wrong outputs are among {together}"
    yield Pattern("place", text, chance)


def _of_blocks(known: Sequence[Operation], first_wrong: Mapping[str, int], block_size: int | None) -> Iterator[Pattern]:
    if block_size is None or len(known) < MIN_WRONG:
        return
    blocks = [max(1, _length(one) // block_size) for one in known]
    numbers = [first_wrong[one.request.request_id] for one in known]
    if all(number == 1 for number in numbers):
        text = f"in all {len(known):,} wrong outputs whose damaged blocks are known, the first block is wrong"
        yield Pattern("block", text, prod(1 / count for count in blocks))
    if all(number >= count for number, count in zip(numbers, blocks, strict=True)):
        text = f"in all {len(known):,} wrong outputs whose damaged blocks are known, only the last block is wrong"
        yield Pattern("block", text, prod(1 / count for count in blocks))


def at_least(found: int, wrong: int, having: int, verified: int) -> float:
    """Probability that of ``wrong`` outputs, drawn from ``verified``, at least ``found`` are among ``having``."""
    possible = range(max(found, wrong + having - verified), min(wrong, having) + 1)
    every = _log_ways(verified, wrong)
    ways = (_log_ways(having, n) + _log_ways(verified - having, wrong - n) - every for n in possible)
    return min(1.0, sum(map(exp, ways)))


def _log_ways(everything: int, chosen: int) -> float:
    """The logarithm of the binomial coefficient, which may exceed the range of a float."""
    return lgamma(everything + 1) - lgamma(chosen + 1) - lgamma(everything - chosen + 1)


def _of(some: int, every: int) -> str:
    return f"all {every:,}" if some == every else f"{some:,} of {every:,}"
