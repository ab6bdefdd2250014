"""The worker side of offloading for vLLM 0.20 to 0.24: one handler per direction.

Copies at once, for the reasons in :mod:`offload_worker`. Follows the interface of 0.20.2 and 0.24.0.
"""

from collections.abc import Callable
from typing import Any

from vllm.v1.kv_offload.cpu import spec as cpu_spec
from vllm.v1.kv_offload.worker.worker import OffloadingHandler, TransferResult

from .page_tier import Copied, EndedTransfers, PageTier, Transfer


class HostOffloadingHandler(EndedTransfers, OffloadingHandler):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Copies in one direction; ``kind`` is vLLM's pair (source medium, target medium)."""

    def __init__(self, kind: tuple[str, str], copy: Callable[[Any, Any], Copied]) -> None:
        super().__init__()
        self._kind = kind
        self._copy = copy

    def transfer_async(self, job_id: int, spec: tuple[Any, Any]) -> bool:
        """Copy from the spec's source to its target before returning."""
        copied = self._copy(*spec)
        self._finished.append(
            TransferResult(
                job_id, success=True, transfer_size=copied.bytes, transfer_time=copied.seconds, transfer_type=self._kind
            )
        )
        return True


def make_handlers(tier: PageTier) -> list[tuple[type[Any], type[Any], HostOffloadingHandler]]:
    """Return (source type, target type, handler) for storing and for loading."""
    blocks, chunks = cpu_spec.GPULoadStoreSpec, cpu_spec.CPULoadStoreSpec
    store = HostOffloadingHandler(
        (blocks.medium(), chunks.medium()), lambda source, target: tier.store(Transfer.between(source, target))
    )
    load = HostOffloadingHandler(
        (chunks.medium(), blocks.medium()), lambda source, target: tier.load(Transfer.between(target, source))
    )
    return [(blocks, chunks, store), (chunks, blocks, load)]
