"""Whether the model's configuration here is the one that is served: the first transfers' bytes beside what it makes.

A transfer of a known prompt moves whole blocks of every layer. Where each block is larger than the configuration
makes it, that configuration is another model's, or its KV cache has another type: no fault of a transfer makes a block
larger. Where it moves whole blocks more than the prompt has, a region may be read beyond its end; where it moves less,
as if some layers were not there, some of it may be lost. Then either may be wrong, and bytes are not judged.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from harness.facts import Deployment, Role
from harness.observe.counters import Delta
from harness.preflight.item import Item, Level

_LESS = {Fraction(1, 2), Fraction(1, 4)}
"""What another type of the KV cache makes of the bytes."""


def volume(deployment: Deployment, since: Sequence[Delta | None], *, tokens: int, named: str | None) -> Iterator[Item]:
    """``since``: of the decode servers, in order, while each prefill server handed each of them one prompt.

    ``named``: the configuration that the user gave with ``--model``; None: what the servers name is read.
    """
    observed, expected = _bytes(deployment, since, tokens)
    if observed is None or not expected or observed == expected:
        return
    ratio = Fraction(int(observed), expected)
    moved = (
        f"The first transfers moved {observed:,.0f} bytes, and the model configuration at "
        f"{named or deployment.model_path} makes {expected:,} of them ({float(ratio):.4g} times)"
    )
    remedy = "Give --model with the configuration that is served, and --kv-cache-dtype if the servers were given one"
    if ratio > 1 and named and not _blocks_too_many(deployment, int(observed), expected):
        yield Item("bytes", Level.STOPS, moved, remedy)
    elif ratio > 1 or ratio in _LESS or _whole_layers(deployment, ratio):
        yield Item("bytes", Level.UNKNOWN, f"{moved}, so that bytes are not judged", remedy)


def _bytes(deployment: Deployment, since: Sequence[Delta | None], tokens: int) -> tuple[float | None, int]:
    """Seen and predicted; None where it cannot be compared: unlike blocks, several ranks, other reads among them."""
    geometry, sizes = deployment.geometry, {server.block_size for server in deployment.servers}
    size = next(iter(sizes))
    if geometry is None or size is None or len(sizes) > 1:
        return None, 0
    handovers = len(deployment.of(Role.PREFILL))
    moved = 0.0
    for one in since:
        here, reads = (None, None) if one is None else (one.of("nixl_bytes"), one.of("nixl_transfers"))
        if here is None or reads != handovers:
            return None, 0
        moved += here
    return moved, len(since) * handovers * -(-tokens // size) * geometry.block_bytes(size)


def _blocks_too_many(deployment: Deployment, observed: int, expected: int) -> bool:
    """Whether it may be blocks of the right size, but more of them; all of them twice is another type or model."""
    geometry, size = deployment.geometry, deployment.servers[0].block_size
    block = geometry.block_bytes(size) if geometry is not None and size is not None else 0
    return bool(block) and (observed - expected) % block == 0 and observed < 2 * expected


def _whole_layers(deployment: Deployment, ratio: Fraction) -> bool:
    return deployment.geometry is not None and (ratio * deployment.geometry.layers).denominator == 1 and ratio > 0
