"""An offload tier in host memory for a KV cache in host memory: whole pages, copied while the caller waits.

Words, as in vLLM's offloading: a *page* is one block's KV in one tensor of the cache (all of a layer's K and V, in
whatever order the attention backend keeps them); the tier holds *chunks* of ``blocks_per_chunk`` pages. A page is
copied byte for byte, so its inner layout does not matter. Knows torch and numpy, not vLLM.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Rows = npt.NDArray[np.int64]
Pages = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class PageRef:
    """One layer's page: which tensor holds it and how many of its bytes are not padding."""

    tensor: int
    page_bytes: int


@dataclass(frozen=True, slots=True)
class BlockRun:
    """Blocks of one request in one cache group that follow each other, and the chunks they belong to."""

    blocks: Rows
    """Block ids in the KV cache, shape (n,)."""
    chunks: Rows
    """Chunk ids in the tier that cover the blocks, in order."""
    first: int
    """Index of the first block within the request: it may lie inside its chunk."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What one transfer moved."""

    bytes: int
    seconds: float


class PageTier:
    """The KV cache's tensors beside the tier's, row by row.

    ``tensors``: int8, shape (blocks, page bytes), on the CPU; rows may be strided. ``groups``: the pages of each
    cache group. The tier is allocated here: tensors × chunks × blocks_per_chunk × page bytes, committed
    by the operating system as it is first written.
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
        self._tier: list[Pages] = [np.zeros((rows, pages.shape[1]), np.int8) for pages in self._cache]
        self._groups = groups
        self._blocks_per_chunk = blocks_per_chunk

    def store(self, runs: Sequence[BlockRun]) -> Copied:
        """Copy blocks of the KV cache into their chunks; one run per cache group."""
        return self._transfer(self._cache, self._tier, runs, to_tier=True)

    def load(self, runs: Sequence[BlockRun]) -> Copied:
        """Copy blocks back from their chunks into the KV cache; one run per cache group."""
        return self._transfer(self._tier, self._cache, runs, to_tier=False)

    def _transfer(
        self, source: list[Pages], target: list[Pages], runs: Sequence[BlockRun], *, to_tier: bool
    ) -> Copied:
        started = time.perf_counter()
        moved = 0
        for run, refs in zip(runs, self._groups, strict=True):
            tier_rows = _tier_rows(run, self._blocks_per_chunk)
            reads, writes = (run.blocks, tier_rows) if to_tier else (tier_rows, run.blocks)
            for ref in refs:
                target[ref.tensor][writes, : ref.page_bytes] = source[ref.tensor][reads, : ref.page_bytes]
                moved += len(run.blocks) * ref.page_bytes
        return Copied(moved, time.perf_counter() - started)


def _tier_rows(run: BlockRun, blocks_per_chunk: int) -> Rows:
    """Row of the tier for each block of the run, shape (n,); ValueError if the chunks do not cover it exactly."""
    skip = run.first % blocks_per_chunk
    needed = -(-(skip + len(run.blocks)) // blocks_per_chunk) if len(run.blocks) else 0
    if len(run.chunks) != needed:
        # Unequal lengths must not reach numpy: it would repeat a single row to fill the others.
        raise ValueError(
            f"{len(run.blocks)} blocks from block {run.first} on need {needed} chunks of {blocks_per_chunk}, "
            f"but {len(run.chunks)} were named"
        )
    rows = run.chunks[:, None] * blocks_per_chunk + np.arange(blocks_per_chunk)
    return rows.reshape(-1)[skip : skip + len(run.blocks)]


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cpu":
        raise ValueError(
            f"the KV cache is on {tensor.device}, but this tier copies host memory only. "
            "On a GPU, leave spec_name and spec_module_path out: vLLM's own CPUOffloadingSpec serves it."
        )
    return tensor
