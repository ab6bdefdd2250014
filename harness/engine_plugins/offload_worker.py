"""The worker side of offloading for vLLM 0.26 to 0.32.

It copies at once, which is right under load for these reasons:

Rule 1. A copy has ended when ``submit_store`` or ``submit_load`` returns. vLLM calls both, and runs the model, on one
thread of the worker, step by step. A page is written in step n. Its store is submitted at the start of a later step,
before that step's loads and forward pass, and before the block goes to another request (vLLM calls this flushing). So a
store sees the page complete and not yet overwritten. A copy on another thread could be overtaken by the next forward
pass, or by a NIXL read into the block once the block has a new owner.

Rule 2. Besides the engine, only NIXL accesses pages. On a prefill server, NIXL reads pages of finished requests; a
store may read them too, and no load can write them, because their blocks are not free. On a decode server, NIXL writes
pages of requests that wait for their KV; these requests have nothing to store yet.

Rule 3. vLLM's manager, on the scheduler's side, ensures that no chunk is loaded before ``get_finished`` reported its
store, and that no chunk is reused before ``get_finished`` reported its load.
"""

from typing import Any

from vllm.v1.kv_offload.base import OffloadingWorker, TransferResult

from .page_tier import Copied, EndedTransfers, PageTier, Transfer


class HostOffloadingWorker(EndedTransfers, OffloadingWorker):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Copies between the KV cache and the tier, one transfer after another."""

    def __init__(self, tier: PageTier) -> None:
        super().__init__()
        self._tier = tier

    def submit_store(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """Copy blocks to their chunks before returning."""
        return self._finish(job_id, self._tier.store(Transfer.between(src_spec, dst_spec)))

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """Copy chunks to their blocks before returning."""
        return self._finish(job_id, self._tier.load(Transfer.between(dst_spec, src_spec)))

    def _finish(self, job_id: int, copied: Copied) -> bool:
        self._finished.append(
            TransferResult(job_id, success=True, transfer_size=copied.bytes, transfer_time=copied.seconds)
        )
        return True
