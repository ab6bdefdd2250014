"""An offload tier in host memory for a KV cache in host memory; it copies whole pages while the caller waits.

The terms are those of vLLM's offloading: a *page* is one block's KV in one tensor of the cache (all of a layer's K and
V, in the attention backend's order), and the tier holds *chunks* of ``blocks_per_chunk`` pages. A page is copied byte
for byte, so its inner layout does not matter. This module needs torch and numpy, but not vLLM.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Rows = npt.NDArray[np.int64]
Pages = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class PageRef:
    """The page of one layer: the index of its tensor, and how many of its bytes are not padding."""

    tensor: int
    page_bytes: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """Blocks of one request and the chunks that they belong to, by cache group in vLLM's order."""

    blocks: Rows
    """Block ids in the KV cache, shape (sum of ``sizes``,)."""
    chunks: Rows
    """Chunk ids in the tier; for each group, every chunk that its blocks touch, once."""
    sizes: Sequence[int]
    """Number of blocks of each cache group."""
    firsts: Sequence[int]
    """Index within the request of each group's first block, which may be in the middle of a chunk."""

    @classmethod
    def between(cls, blocks: Any, chunks: Any) -> "Transfer":
        """Make a transfer from vLLM's ``GPULoadStoreSpec`` and ``CPULoadStoreSpec``."""
        return cls(_ids(blocks), _ids(chunks), sizes=blocks.group_sizes, firsts=blocks.block_indices)

    def rows(self, blocks_per_chunk: int) -> Iterator[tuple[Rows, Rows]]:
        """Yield (rows of the cache, rows of the tier) of each group, of equal length.

        Raises ValueError unless the chunks cover the blocks exactly, because numpy would repeat a row for the missing
        ones.
        """
        blocks, chunks = 0, 0
        for size, first in zip(self.sizes, self.firsts, strict=True):
            skip = first % blocks_per_chunk
            touched = -(-(skip + size) // blocks_per_chunk) if size else 0
            tier = _pages_of(self.chunks[chunks : chunks + touched], blocks_per_chunk)[skip : skip + size]
            yield _exactly(size, self.blocks[blocks : blocks + size]), _exactly(size, tier)
            blocks, chunks = blocks + size, chunks + touched
        _exactly(blocks, self.blocks)
        _exactly(chunks, self.chunks)


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a transfer: bytes copied, without padding, and seconds taken."""

    bytes: int
    seconds: float


class EndedTransfers:
    """The part of vLLM's worker interface that is the same in all versions: every submitted transfer has ended."""

    def __init__(self) -> None:
        self._finished: list[Any] = []

    def get_finished(self) -> list[Any]:
        """Return the transfers that have ended since the last call, with their bytes and seconds."""
        finished, self._finished = self._finished, []
        return finished

    def wait(self, job_ids: set[int]) -> None:
        """Do nothing, because every submitted transfer has ended."""


def committed(pages: Pages) -> Pages:
    """Zero the memory, so that the machine backs it before the first request needs it, and return it.

    New memory is backed when it is first written. On a virtual machine whose host provides memory on demand, backing
    ran at 50 MB/s with pauses of most of a second: one copy of 2 MB took 31 s in the middle of a load. Its step stood
    still, and leases on the prefill server expired meanwhile.
    """
    pages.fill(0)
    return pages


class PageTier:
    """Copies pages between the KV cache's tensors and the tier.

    ``tensors`` are int8 on the CPU, shape (blocks, page bytes), and need not be contiguous. ``groups`` are the pages of
    each cache group. The tier has tensors * chunks * blocks_per_chunk * page bytes; it is allocated here and backed at
    once (:func:`committed`).
    """

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        groups: Sequence[Sequence[PageRef]],
        *,
        blocks_per_chunk: int,
        chunks: int,
    ) -> None:
        self._cache: list[Pages] = [_on_host(tensor).numpy() for tensor in tensors]
        rows = chunks * blocks_per_chunk
        self._tier: list[Pages] = [committed(np.empty((rows, pages.shape[1]), np.int8)) for pages in self._cache]
        self._groups = groups
        self._blocks_per_chunk = blocks_per_chunk

    def store(self, transfer: Transfer) -> Copied:
        """Copy blocks of the KV cache into their chunks."""
        started = time.perf_counter()
        moved = 0
        for pages, blocks, rows in self._pages(transfer):
            moved += _copy(self._cache[pages.tensor], blocks, self._tier[pages.tensor], rows, pages.page_bytes)
        return Copied(moved, time.perf_counter() - started)

    def load(self, transfer: Transfer) -> Copied:
        """Copy blocks back from their chunks into the KV cache."""
        started = time.perf_counter()
        moved = 0
        for pages, blocks, rows in self._pages(transfer):
            moved += _copy(self._tier[pages.tensor], rows, self._cache[pages.tensor], blocks, pages.page_bytes)
        return Copied(moved, time.perf_counter() - started)

    def _pages(self, transfer: Transfer) -> Iterator[tuple[PageRef, Rows, Rows]]:
        # The list is built first, so that a transfer that does not fit is refused before any byte is copied.
        groups = list(transfer.rows(self._blocks_per_chunk))
        for refs, (blocks, rows) in zip(self._groups, groups, strict=True):
            yield from ((ref, blocks, rows) for ref in refs)


def _ids(spec: Any) -> Rows:
    return np.asarray(spec.block_ids, dtype=np.int64)


def _copy(source: Pages, reads: Rows, target: Pages, writes: Rows, page_bytes: int) -> int:
    target[writes, :page_bytes] = source[reads, :page_bytes]
    return len(writes) * page_bytes


def _pages_of(chunks: Rows, blocks_per_chunk: int) -> Rows:
    return (chunks[:, None] * blocks_per_chunk + np.arange(blocks_per_chunk)).reshape(-1)


def _exactly(length: int, ids: Rows) -> Rows:
    if len(ids) != length:
        raise ValueError(
            f"A transfer names {len(ids)} blocks or chunks instead of {length}: this vLLM describes transfers "
            "differently from vLLM 0.20 to 0.32. Launch with --connector nixl, or with vLLM 0.32."
        )
    return ids


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cpu":
        raise ValueError(
            f"The KV cache is on {tensor.device}, but HostOffloadingSpec copies only host memory. "
            "On a GPU, remove spec_name and spec_module_path, so that vLLM uses its own CPUOffloadingSpec."
        )
    return tensor
