"""Faults of several kinds at random moments of a long load (``--faults N``). Pure: the seed decides everything."""

from collections.abc import Iterator, Sequence

import numpy as np

_RESTARTS = 6
"""One of so many faults ends a process and starts it again: a real engine needs 50 to 100 s for that."""
_QUIET = 0.1
"""The share of the load's time, at its end, in which no fault is begun."""
_LONGEST_S = 4.0
"""Seconds for which a fault is at work, at most: a fraction of NIXL's lease (30 s)."""
_PROXY = "proxy"


def random_faults(count: int, seconds: float, seed: int, servers: Sequence[str], *, launched: bool = True) -> list[str]:
    """Faults as texts for ``--fault``, in the order of their moments.

    ``seconds``: the length of the load. ``launched``: whether the harness started the servers, as faults on processes
    need; it is without these otherwise. Left out are faults that the load may leave without evidence: of idle
    connections, of readings of /metrics (there is none during the load), and of NIXL's side channel, which is used at
    the first handshake alone. Clients that leave do so during the whole load (``--fault cancel``), at no moment.

    Faults on one server never overlap (``alone=target``). Faults on links and faults with a restart have the
    deployment for themselves (``alone=all``): bytes that pass a link are evidence only if the other servers work.
    """
    rng = np.random.default_rng((seed, count))
    restarts = count // _RESTARTS if launched else 0
    short = _drawn(rng, [*_links(servers), *(_pauses(servers) if launched else ())], count - restarts)
    kinds = [*short, *_drawn(rng, list(_restarted(servers)), restarts)]
    rng.shuffle(kinds)
    moments = np.sort(rng.uniform(0, (1 - _QUIET) * seconds, count))
    lasting = np.minimum(_LONGEST_S, rng.uniform(0.1, 0.4, count) * seconds / max(1, count))
    timed = zip(kinds, moments, lasting, strict=True)
    return [f"{kind},after={after:.2f},for={lasts:.2f}" for kind, after, lasts in timed]


def _drawn(rng: np.random.Generator, menu: Sequence[str], count: int) -> list[str]:
    """Each of the menu in turn, in a random order, so that a long run has all of them."""
    if not menu:
        return []
    order = [menu[index] for _ in range(count // len(menu) + 1) for index in rng.permutation(len(menu))]
    return order[:count]


def _pauses(servers: Sequence[str]) -> Iterator[str]:
    for name in (*servers, _PROXY):
        yield f"pause:server={name},alone=target"


def _links(servers: Sequence[str]) -> Iterator[str]:
    for name in servers:
        for how in ("delay", "throttle", "cut", "half-open"):
            yield f"link:link={name},how={how},alone=all"


def _restarted(servers: Sequence[str]) -> Iterator[str]:
    for name in (*servers, _PROXY):
        yield f"kill:server={name},alone=target"
        yield f"drain:server={name},alone=all"
