"""Whether the model configuration read here is that of the served model, by the bytes of the first transfers.

A transfer of a known prompt moves whole blocks of every layer. If every block is larger than the configuration says,
the configuration belongs to another model, or the KV cache has another dtype: no fault of a transfer makes blocks
larger. More blocks than the prompt has may mean that a region is read beyond its end, and fewer layers that KV is lost:
then either the configuration or the transfer may be wrong, and bytes are not judged.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from harness.facts import Deployment, Role
from harness.observe.growth import Delta
from harness.preflight.item import Item, Level

_OTHER_DTYPES = {Fraction(1, 2), Fraction(1, 4)}
"""Ratios of bytes that a smaller dtype of the KV cache gives."""


def check_transfer_bytes(
    deployment: Deployment, growth: Sequence[Delta | None], *, tokens: int, model: str | None
) -> Iterator[Item]:
    """``growth``: the decode servers' counts, in order, while each prefill server handed one prompt to each of them.

    ``tokens``: the prompt's length. ``model``: the user's ``--model``; None if the servers named the configuration.
    """
    observed, expected = _bytes(deployment, growth, tokens)
    if observed is None or not expected or observed == expected:
        return
    ratio = Fraction(int(observed), expected)
    seen = (
        f"The first transfers moved {observed:,.0f} bytes, but by the model configuration at "
        f"{model or deployment.model_path} they should move {expected:,} ({float(ratio):.4g} times)"
    )
    remedy = (
        "Give the configuration of the served model with --model, and --kv-cache-dtype if the servers were launched "
        "with it"
    )
    if ratio > 1 and model and not _may_be_more_blocks(deployment, int(observed), expected):
        yield Item("bytes", Level.STOPS, seen, remedy)
    elif ratio > 1 or ratio in _OTHER_DTYPES or _is_whole_layers(deployment, ratio):
        yield Item("bytes", Level.UNKNOWN, f"{seen}, so bytes are not judged", remedy)


def _bytes(deployment: Deployment, growth: Sequence[Delta | None], tokens: int) -> tuple[float | None, int]:
    """Observed and expected bytes; None if they cannot be compared (unlike block sizes, missing or further reads)."""
    geometry, sizes = deployment.geometry, {server.block_size for server in deployment.servers}
    size = next(iter(sizes))
    if geometry is None or size is None or len(sizes) > 1:
        return None, 0
    handovers = len(deployment.of(Role.PREFILL))
    observed = 0.0
    for grown in growth:
        moved, reads = (None, None) if grown is None else (grown.of("nixl_bytes"), grown.of("nixl_transfers"))
        if moved is None or reads != handovers:
            return None, 0
        observed += moved
    return observed, len(growth) * handovers * -(-tokens // size) * geometry.block_bytes(size)


def _may_be_more_blocks(deployment: Deployment, observed: int, expected: int) -> bool:
    """Whether the bytes may be more blocks of the right size; twice as many bytes mean another dtype or model."""
    geometry, size = deployment.geometry, deployment.servers[0].block_size
    block = geometry.block_bytes(size) if geometry is not None and size is not None else 0
    return bool(block) and (observed - expected) % block == 0 and observed < 2 * expected


def _is_whole_layers(deployment: Deployment, ratio: Fraction) -> bool:
    return deployment.geometry is not None and (ratio * deployment.geometry.layers).denominator == 1 and ratio > 0
