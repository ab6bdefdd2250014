"""One pull: which of P's pages D reads, and into which of its blocks (rule 2 of ``transfer.py``)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.sim.blocks import Page
from harness.sim.fabric import Peer
from harness.sim.sequence import Sequence


class EngineDead(Exception):  # noqa: N818 - reads as what happened
    """An assertion of the engine failed, so that it serves no more requests."""


class Planned(NamedTuple):
    """A pull that the scheduler has planned."""

    sequence: Sequence
    local: list[int]
    """D's blocks to write; empty if P only has to be notified."""
    awaited: bool
    """Whether the request waits for the pull."""


@dataclass(slots=True)
class Pull:
    """One read by D; planted bugs may change it (pulls.py)."""

    sequence: Sequence
    remote: Peer | None
    """P's connector; None if the handshake failed."""
    local: list[int]
    """D's blocks to write."""
    pages: list[Page] = field(default_factory=list)
    """The pages to write, one for each local block that is written."""
    blocks_read: int = 0
    """Number of P's blocks that the byte counter shows."""
    notify: bool = True
    hangs: bool = False
    """Whether D never learns that the pull has ended."""
    fails: bool = False


def read(pull: Pull, remote: Peer, block_size: int) -> None:
    """Fill in the pages of a pull into blocks of D's ``block_size``. Raises EngineDead if P named too few blocks."""
    ids = remote_blocks(pull.sequence)
    ratio, odd = divmod(block_size, remote.layout.block_size)
    # D's block size must be a multiple of P's.
    if odd:
        pull.fails = True
        return
    wanted = len(pull.local) * ratio
    if ratio == 1 and len(ids) < wanted:
        raise EngineDead("assert num_decode_blocks <= len(prefill_group)")
    if ratio > 1:
        hit = len(pull.sequence.blocks) - len(pull.local)
        wanted = min(wanted, len(ids) - hit * ratio)
    ids = ids[-wanted:]
    if not all(0 <= block < remote.layout.num_blocks for block in ids):
        pull.fails = True
        return
    pages = [remote.page(block) for block in ids]
    if not remote.still_holds(pull.sequence):
        pages = [Page(page.rows, tainted=True, drift=page.drift) for page in pages]
    pull.pages = list(_joined(pages, ratio, block_size))
    pull.blocks_read = len(ids)


def remote_blocks(sequence: Sequence) -> list[int]:
    """P's block ids of the first KV cache group, from a flat list or a list per group; empty without parameters."""
    ids: Any = (sequence.params or {}).get("remote_block_ids")
    first = ids[0] if isinstance(ids, list) and ids and isinstance(ids[0], list) else ids
    try:
        # vLLM makes an array of integers of them: digits in a text are a number, and a fraction is cut off.
        return [int(block) for block in first or ()]
    except (TypeError, ValueError) as error:
        raise EngineDead(f"{type(error).__name__}: {error}") from None


def _joined(pages: list[Page], ratio: int, block_size: int) -> Iterable[Page]:
    """Join P's pages to pages of D's block size; the last page is padded with zeros."""
    if ratio == 1:
        yield from pages
        return
    for start in range(0, len(pages), ratio):
        group = pages[start : start + ratio]
        rows = tuple(row for page in group for row in page.rows)
        rows += (0,) * (block_size - len(rows))
        yield Page(rows, any(page.tainted for page in group), max(page.drift for page in group))
