"""A NIXL agent that owns a KV cache laid out and registered as vLLM's connector does it, in a process of its own.

vLLM 0.32 registers one region for each layer, in which K and V of a block lie together, and describes each block of
each region by one descriptor, region after region (``register_kv_caches`` and ``_build_fa_local`` of its NIXL
connector). UCX is the backend, with four threads and telemetry, as there.
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.engine_plugins.nixl_progress import set_progress_delay

_THREADS = 4
"""``num_threads`` of vLLM's connector."""
_DEVICE = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """A KV cache: ``region_bytes`` is what a block takes in one layer, K and V together."""

    layers: int
    blocks: int
    region_bytes: int


@dataclass(frozen=True, slots=True)
class Peer:
    """What another process must know to read an agent's cache."""

    metadata: bytes
    regions: tuple[int, ...]
    """The address of each layer's region."""


class Cache:
    """An agent and its registered cache, whose blocks hold their own number."""

    def __init__(self, name: str, layout: Layout, progress_delay_us: int) -> None:
        api = _nixl(progress_delay_us)
        self.agent = api.nixl_agent(name, api.nixl_agent_config(num_threads=_THREADS, capture_telemetry=True))
        self._layout = layout
        self._regions = [_filled(layout) for _ in range(layout.layers)]
        registered = [(region.ctypes.data, region.nbytes, _DEVICE, "") for region in self._regions]
        self.agent.register_memory(self.agent.get_reg_descs(registered, "DRAM"), backends=["UCX"])
        self.peer = Peer(self.agent.get_agent_metadata(), tuple(region.ctypes.data for region in self._regions))

    def described(self, owner: str, regions: Sequence[int]) -> Any:
        """A prepared list of all blocks' descriptors, region after region. ``owner``: NIXL_INIT_AGENT, or a peer."""
        blocks = np.arange(self._layout.blocks, dtype=np.uint64) * np.uint64(self._layout.region_bytes)
        rows = [np.stack([start + blocks, *self._constant()], axis=1) for start in np.array(regions, np.uint64)]
        return self.agent.prep_xfer_dlist(owner, self.agent.get_xfer_descs(np.concatenate(rows), "DRAM"))

    def _constant(self) -> tuple[npt.NDArray[np.uint64], ...]:
        return tuple(np.full(self._layout.blocks, value, np.uint64) for value in (self._layout.region_bytes, _DEVICE))

    @property
    def own(self) -> Any:
        """The prepared list of its own blocks."""
        return self.described("NIXL_INIT_AGENT", self.peer.regions)

    def clear(self) -> None:
        """Fill the cache with what no block of another cache holds."""
        for region in self._regions:
            region[:] = 255

    def holds(self, mine: Sequence[int], theirs: Sequence[int]) -> bool:
        """Whether these blocks hold what those of the other cache hold, in all layers."""
        rows = (region.reshape(self._layout.blocks, -1) for region in self._regions)
        expected = _numbers(np.array(theirs))
        return all(bool((row[mine] == expected[:, None]).all()) for row in rows)


def serve(name: str, layout: Layout, progress_delay_us: int, pipe: Connection) -> None:
    """Own a cache until the pipe closes: the process that is read from."""
    # Dies with its parent (PR_SET_PDEATHSIG, SIGKILL): NIXL's threads would outlive an exception.
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    cache = Cache(name, layout, progress_delay_us)
    pipe.send(cache.peer)
    pipe.recv()


def _nixl(progress_delay_us: int) -> Any:
    # Its greetings would stand between the rows of the table.
    os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")
    from nixl import _api  # noqa: PLC0415 - no dependency of the harness

    if progress_delay_us:
        set_progress_delay(_api, progress_delay_us)
    return _api


def _filled(layout: Layout) -> npt.NDArray[np.uint8]:
    """A layer's region. Written, so that all of its memory is there."""
    return np.repeat(_numbers(np.arange(layout.blocks)), layout.region_bytes)


def _numbers(blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    return (blocks % 251).astype(np.uint8)
