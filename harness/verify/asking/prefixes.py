"""Prefixes of served prompts, which probes send again: each once for each server that may hold its blocks. Pure."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.facts import Deployment, serving
from harness.history import History, Operation
from harness.memo import once
from harness.scenario import Route
from harness.verify.asking.options import Verification
from harness.verify.asking.outputs import through_proxy
from harness.verify.judging.hits import ROLES, prefix_hashes
from harness.verify.judging.load_part import Load, load_of
from harness.verify.judging.prefixes import Numbers, PrefixHashes, hashes_of_load


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix of a served prompt, to be sent to one server."""

    source: Operation
    tokens: int
    """Tokens of its whole blocks; the probe has one more."""
    server: int
    """Index of the server among the servers of the route."""
    blocks: int
    """A hash of the salt and the blocks. (Their tokens would take memory that grows with the square of a prompt.)"""

    @property
    def key(self) -> tuple[int, int]:
        """Equal for prefixes that read the same blocks."""
        return self.server, self.blocks

    def name(self, phase: str) -> str:
        """The request id of its probe in a phase."""
        where = f"@{self.server}" if self.server else ""
        return f"{self.source.request.request_id}-{phase}-{self.tokens}{where}"


def once_each(found: Iterable[Prefix]) -> list[Prefix]:
    """The first of all prefixes that read the same blocks."""
    by_key: dict[tuple[int, int], Prefix] = {}
    for prefix in found:
        by_key.setdefault(prefix.key, prefix)
    return list(by_key.values())


def prefixes_of(verification: Verification, served: Iterable[Operation], route: Route) -> Iterator[Prefix]:
    """The prefixes of these operations' prompts, for each server that may hold them."""
    size = verification.block_size
    for o in served:
        for server in holders(verification.deployment, o, route):
            for number, blocks in enumerate(prefix_hashes(o, size)):
                yield Prefix(o, (number + 1) * size, server, blocks)


def holders(deployment: Deployment, operation: Operation, route: Route) -> Iterable[int]:
    """Indices of the route's servers that may have served the operation."""
    servers, ended = deployment.of(ROLES[route]), operation.ended
    index = serving(servers, ended.decode_server if route is Route.DECODE else ended.prefill_server)
    return range(len(servers)) if index is None else (index,)


def drawn(verification: Verification, history: History, route: Route, first: Collection[str] = ()) -> Iterator[Prefix]:
    """Every prefix of every served prompt, once for each server that may hold it, in an order drawn from the seed.

    ``first``: ids of requests whose prefixes come before all others, in that order, too. Prefixes are made one by one,
    since a large load has millions of them, and a budget suffices for hundreds.
    """
    load, everything = load_of(history), _drawn(verification, through_proxy(history), load_of(history), route)
    early = np.isin(everything.rows_of(everything.order), everything.rows_from(load, first))
    for place in (*everything.order[early], *everything.order[~early]) if early.any() else everything.order:
        yield everything.prefix(load, int(place), verification.block_size)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """All prefixes, packed. A *row* is an operation of the load and a server that may hold its blocks."""

    sources: Numbers
    """The operation of each row, as its place in the load."""
    servers: Numbers
    ends: Numbers
    """The end of each row's prefixes among all prefixes of all rows."""
    skipped: Numbers
    """Where each row's hashes begin, less the beginning of its prefixes."""
    found: PrefixHashes
    order: Numbers
    """Places among all prefixes of all rows: the first of each server and blocks, in random order."""

    def rows_of(self, places: Numbers) -> Numbers:
        """The row of each place."""
        return np.searchsorted(self.ends, places, side="right")

    def rows_from(self, load: Load, names: Collection[str]) -> Numbers:
        """The rows of these requests."""
        wanted = frozenset(names)
        return np.array([row for row, at in enumerate(self.sources) if load[at].request.request_id in wanted], np.int64)

    def prefix(self, load: Load, place: int, size: int) -> Prefix:
        """The prefix at a place."""
        row = int(np.searchsorted(self.ends, place, side="right"))
        number = place - (int(self.ends[row - 1]) if row else 0)
        blocks = int(self.found.hashes[place + self.skipped[row]])
        return Prefix(load[self.sources[row]], (number + 1) * size, int(self.servers[row]), blocks)


@once
def _drawn(verification: Verification, served: list[Operation], load: Load, route: Route) -> _Drawn:
    found, rows = hashes_of_load(load, verification.block_size), _rows(verification, served, load, route)
    counts = found.counts[rows[:, 0]]
    ends = np.cumsum(counts)
    skipped = (np.cumsum(found.counts) - found.counts)[rows[:, 0]] - (ends - counts)
    hashes = found.hashes[np.arange(ends[-1] if len(ends) else 0) + np.repeat(skipped, counts)]
    different = _first_of_each(hashes, np.repeat(rows[:, 1], counts))
    order = different[np.random.default_rng(verification.how.seed).permutation(len(different))]
    return _Drawn(rows[:, 0], rows[:, 1], ends, skipped, found, order)


def _rows(verification: Verification, served: list[Operation], load: Load, route: Route) -> Numbers:
    """Places in the load, and indices of servers; shape (rows, 2)."""
    # The same objects: both are made of one history.
    wanted = set(map(id, served))
    rows = [
        (place, server)
        for place, one in enumerate(load)
        if id(one) in wanted
        for server in holders(verification.deployment, one, route)
    ]
    return np.array(rows, np.int64).reshape(-1, 2)


def _first_of_each(hashes: Numbers, servers: Numbers) -> Numbers:
    """The first place of each pair of hash and server, rising."""
    # Equal ones stay in order.
    by_key = np.lexsort((hashes, servers))
    again = (np.diff(hashes[by_key]) == 0) & (np.diff(servers[by_key]) == 0)
    return np.sort(by_key[np.concatenate([[True], ~again])] if len(by_key) else by_key)
