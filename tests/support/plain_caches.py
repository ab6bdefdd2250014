"""What the oracle's caches answer, by definition: every question looks at every request, or at every use.

The oracle answers the same questions by searches in sorted tables. These definitions are what it must agree with.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf

from harness.oracle.blocks import Block, Chain
from harness.oracle.offload_tier import OffloadTier
from harness.oracle.prefix_cache import PrefixCache
from harness.oracle.residency import RETURN_DELAY, Use
from harness.oracle.server_request import PhaseKey, ServerRequest
from harness.verdict import Bounds


@dataclass(frozen=True)
class PlainResidency:
    """A store and its users, as :class:`harness.oracle.residency.Residency`."""

    uses: Sequence[Use]
    capacity: int | None
    possibly_initial: Callable[[Block], bool]

    def users(self, name: Block) -> list[int]:
        """The uses that may have used the name."""
        return [i for i, use in enumerate(self.uses) if name in use.possible]

    @property
    def may_evict(self) -> bool:
        """Rule 2."""
        if self.capacity is None:
            return True
        names = {name for use in self.uses for name in use.possible}
        return len(names) + sum(use.copies for use in self.uses) + max_spare(self.uses) > self.capacity

    def first_end(self, name: Block) -> float:
        """When the first certain use of the name had ended."""
        return min((use.end for use in self.uses if name in use.certain), default=inf)

    def certainly(self, user: int, chain: Chain, depth: int) -> bool:
        """Rules 1 to 3."""
        name, looking = chain[depth], self.uses[user]
        if self.first_end(name) >= looking.start:
            return False
        if not self.may_evict:
            return True
        if self.capacity is None:
            return False
        before = [i for i, use in enumerate(self.uses) if name in use.certain and use.end < looking.start]
        last = max(before, key=lambda i: self.uses[i].start)
        others = self.max_places(self.uses[last].start, looking.end, (last, user), chain, depth)
        return others < self.capacity

    def possibly(self, user: int, chain: Chain, depth: int) -> bool:
        """Rules 1, 2 and 4."""
        name, looking = chain[depth], self.uses[user]
        others = [self.uses[i] for i in self.users(name) if i != user and self.uses[i].start <= looking.end]
        if not others and not self.possibly_initial(name):
            return False
        last = max((use.released for use in others), default=-inf)
        if self.capacity is None or not self.may_evict or last >= looking.start:
            return True
        return self.min_places(last, looking.start, chain, depth) < self.capacity

    def max_places(self, start: float, end: float, excluded: tuple[int, ...], chain: Chain, depth: int) -> int:
        """Rule 3."""
        touching = [i for i, use in enumerate(self.uses) if use.start <= end and use.released >= start]
        active = [self.uses[i] for i in touching if i not in excluded]
        names = {name for use in active for name in use.possible}
        unnamed = sum(use.copies for use in active) + max_spare(active)
        return len((names | {*chain[:depth]}) - {chain[depth]}) + unnamed

    def min_places(self, start: float, end: float, chain: Chain, depth: int) -> int:
        """Rule 4."""
        inside = [use for use in self.uses if use.start > start and use.end < end]
        if not inside:
            return depth
        last = inside[-1]
        before_last = {n for use in inside if use.released < last.start or use is last for n in use.certain}
        together = {n for use in inside for n in use.certain}
        both = [len((names | {*chain[:depth]}) - {chain[depth]}) for names in (before_last, together)]
        return max(both[0] + last.spare[0], both[1])


def max_spare(uses: Sequence[Use]) -> int:
    """The most places without a name that were held at one time."""
    moments = [(use.start, 0, use.spare[1]) for use in uses]
    moments += [(use.released + RETURN_DELAY, 1, -use.spare[1]) for use in uses]
    return max(accumulate(places for _, _, places in sorted(moments)), default=0)


def may_copy(index: int, sharing: Sequence[ServerRequest], *, loads_parts: bool) -> bool:
    """Rule 2 of :mod:`harness.oracle.prefix_cache`: whether one of the requests that share a block may have a copy."""
    request = sharing[index]
    if not request.reads_caches:
        return len(sharing) > 1
    return any(
        other.start <= request.released and request.start <= other.released
        for number, other in enumerate(sharing)
        if number != index and (request.pulls or other.pulls or loads_parts)
    )


def reach(index: int, requests: Sequence[ServerRequest], known: Sequence[tuple[int, ...]]) -> float:
    """Tokens up to which a request may find unknown blocks. ``known``: the known tokens of each request."""
    request = requests[index]
    return max(
        (
            inf if other.prompt_unknown else float(other.max_length)
            for number, other in enumerate(requests)
            if not other.blocks_known
            and number != index
            and other.start <= request.end
            and other.salt == request.salt
            and request.prompt[: len(known[number])] == known[number]
        ),
        default=0.0,
    )


def reliable_use(tier: OffloadTier, index: int) -> Use:
    """The use of a tier with only the certain chunks that cannot have been refused or evicted before its end."""
    uses, use = tier.offers.uses, tier.offers.uses[index]
    overlapping = [i for i, other in enumerate(uses) if other.start <= use.released and use.start <= other.released]
    held = sum(len(uses[i].possible) for i in overlapping)
    if tier.chunks is None or held > tier.chunks:
        return replace(use, certain=())
    step = sum(tier.requests[i].tokens for i in overlapping)
    chain = tier.requests[index].chain[tier.blocks_per_chunk - 1 :: tier.blocks_per_chunk]
    loads = any(tier.offers.possibly(index, chain, depth) for depth in range(len(chain)))
    in_one_offer = tier.step_tokens is not None and step <= tier.step_tokens and not loads
    first = {name: i for i, other in reversed([*enumerate(uses)]) for name in other.possible}
    return replace(use, certain=tuple(name for name in use.certain if in_one_offer or first[name] == index))


def stored(tier: OffloadTier) -> dict[PhaseKey, Bounds]:
    """Blocks stored in each phase: the sum over chunks, of all their users."""
    least, most = Counter[PhaseKey](), Counter[PhaseKey]()
    for name in {name for use in tier.offers.uses for name in use.possible}:
        for phase, low, high in _stores_of(tier, name):
            least[phase] += low * tier.blocks_per_chunk
            most[phase] += high * tier.blocks_per_chunk
    return {phase: Bounds(least[phase], most[phase]) for phase in most}


def _stores_of(tier: OffloadTier, name: Block) -> Iterator[tuple[PhaseKey, int, int]]:
    users = [i for i, use in enumerate(tier.offers.uses) if name in use.possible]
    first = [i for i in users if tier.requests[i].start <= tier.offers.first_end(name)]
    phases = {tier.requests[i].phase for i in first}
    certain = tier.offers.first_end(name) < inf and len(phases) == 1 and not tier.residency.possibly_initial(name)
    certain = certain and not any(_left_by_untold(tier, i) for i in first)
    yield from ((phase, int(certain), 1) for phase in phases)
    for i in [i for i in users if i not in first] + first[1:] if tier.residency.may_evict else ():
        use = tier.offers.uses[i]
        depth = use.possible.index(name)
        if tier.residency.certainly(i, use.possible, depth):
            yield tier.requests[i].phase, 0, 0
        else:
            evicted = name in use.certain and not tier.residency.possibly(i, use.possible, depth)
            yield tier.requests[i].phase, int(evicted and not _left_by_untold(tier, i)), 1


def _left_by_untold(tier: OffloadTier, index: int) -> bool:
    """Whether a request of whose prompt no token is known may have left chunks for this one."""
    mine = tier.requests[index]
    others = [one for i, one in enumerate(tier.requests) if i != index and one.prompt_unknown]
    return any(one.salt == mine.salt and one.start <= mine.end for one in others)


def new_if_missed(cache: PrefixCache, index: int, depth: int) -> bool:
    """Whether a miss of the block proves that it is new, where no blocks of unknown tokens are about."""
    request, residency = cache.requests[index], cache.residency
    name = request.chain[depth]
    if residency.possibly_initial(name):
        return False
    if not residency.may_evict or residency.capacity is None:
        return not residency.may_evict
    others = [one.start for i, one in enumerate(residency.uses) if i != index and name in one.possible]
    first = min((start for start in others if start <= request.end), default=request.end)
    plain = PlainResidency(residency.uses, residency.capacity, residency.possibly_initial)
    return plain.max_places(first, request.end, (index,), request.chain, depth) < residency.capacity
