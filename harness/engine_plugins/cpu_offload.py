"""An offloading spec for vLLM's CPU backend, with vLLM's own scheduler side and metrics and the harness's own tier.

vLLM's ``CPUOffloadingSpec`` refuses the CPU platform, but only when it makes its worker; its manager and metrics work
on a CPU. Select this spec in the connector's configuration::

    {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": {
        "spec_name": "HostOffloadingSpec", "spec_module_path": "pd_harness_engine_plugins.cpu_offload",
        "cpu_bytes_to_use": 67108864, "block_size": 64}}

``cpu_bytes_to_use`` is the tier's size in bytes. ``block_size`` (optional, a multiple of the engine's) is the
number of tokens in a chunk, the unit of storing, loading and evicting.

vLLM 0.26 to 0.32 ask a spec for one worker, and 0.20 to 0.24 for one handler per direction. This spec has both methods.
Each imports its part of vLLM's interface when vLLM calls it, so that no version needs to be compared.
"""

import importlib
import logging
from collections.abc import Iterator
from typing import Any

from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec

from .page_tier import PageRef, PageTier

_log = logging.getLogger("vllm.pd_harness_engine_plugins.cpu_offload")


class HostOffloadingSpec(CPUOffloadingSpec):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """A ``CPUOffloadingSpec`` for a KV cache that is itself in host memory."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._worker_side: Any = None

    def get_worker(self, kv_caches: Any) -> Any:
        """Return the worker side, made once (vLLM 0.26 and later)."""
        if self._worker_side is None:
            side = importlib.import_module(".offload_worker", __package__)
            self._worker_side = side.HostOffloadingWorker(self._make_tier(kv_caches))
        return self._worker_side

    def get_handlers(self, kv_caches: Any) -> Iterator[tuple[type[Any], type[Any], Any]]:
        """Yield (source type, target type, handler) for both directions, made once (before vLLM 0.26)."""
        if self._worker_side is None:
            side = importlib.import_module(".offload_handlers", __package__)
            self._worker_side = side.make_handlers(self._make_tier(kv_caches))
        yield from self._worker_side

    def _make_tier(self, kv_caches: Any) -> PageTier:
        self._refuse_canonical_layout()
        chunks = _one_of(self, "num_chunks", "num_blocks")
        blocks_per_chunk = _one_of(self, "blocks_per_chunk", "block_size_factor")
        if chunks < 1:
            raise ValueError(
                f"cpu_bytes_to_use={self.extra_config['cpu_bytes_to_use']} is too small for one chunk of "
                f"{blocks_per_chunk} blocks. Make it larger, or block_size smaller."
            )
        _log.info("offload tier in host memory: %d chunks of %d blocks", chunks, blocks_per_chunk)
        rows = _rows(kv_caches)
        for pages in rows:
            # Write the cache's memory without changing it, since vLLM's zeros need not be backed (page_tier.committed).
            pages.add_(0)
        return PageTier(rows, _refs(kv_caches), blocks_per_chunk=blocks_per_chunk, chunks=chunks)

    def _refuse_canonical_layout(self) -> None:
        if self.extra_config.get("canonical_layout"):
            raise ValueError(
                "HostOffloadingSpec copies pages unchanged and does not support canonical_layout: "
                "remove that key from kv_connector_extra_config."
            )


def _rows(kv_caches: Any) -> list[Any]:
    """View each tensor of the cache as bytes, shape (blocks, page bytes)."""
    int8 = importlib.import_module("torch").int8
    return [cache.tensor.view(int8).view(-1, cache.page_size_bytes) for cache in kv_caches.tensors]


def _refs(kv_caches: Any) -> list[list[PageRef]]:
    return [[PageRef(ref.tensor_idx, ref.page_size_bytes) for ref in group] for group in kv_caches.group_data_refs]


def _one_of(spec: Any, *names: str) -> int:
    """Return the value of the first of these attributes that this vLLM's spec has."""
    for name in names:
        if hasattr(spec, name):
            return int(getattr(spec, name))
    raise RuntimeError(
        f"This vLLM's CPUOffloadingSpec has none of {', '.join(names)}: HostOffloadingSpec supports the "
        "interface of vLLM 0.20 to 0.32 only. Launch with --connector nixl, or with vLLM 0.32."
    )
