"""The worker side of offloading as vLLM 0.26 to 0.32 asks for it; it copies at once.

Why that is right under load:

Rule 1: a copy is over when ``submit_store`` or ``submit_load`` returns. vLLM calls both, and runs the model,
on one thread of the worker, step by step. A page is written in step n; its store is submitted at the start of
a later step, before that step's loads and forward pass; and a block that goes to another request has its
stores submitted first (vLLM's word is flushing). So a store sees the page complete and not yet overwritten.
Given to a thread, it could be overtaken by the next forward pass, or by a NIXL read into the block once it
has a new owner.

Rule 2: the only other hand on a page is NIXL's. On the prefill side it reads pages of finished requests: so
may a store, and no load can write them, because those blocks are not free. On the decode side it writes pages
of requests that wait for them: those have nothing to store yet.

Rule 3: nobody loads a chunk before its store was reported by ``get_finished``, nor reuses one before its load
was: vLLM's manager, on the scheduler's side, sees to that.
"""

from typing import Any

from vllm.v1.kv_offload.base import OffloadingWorker, TransferResult

from .page_tier import Copied, PageTier, Transfer


class HostOffloadingWorker(OffloadingWorker):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Copies between the KV cache and the tier, one transfer after the other."""

    def __init__(self, tier: PageTier) -> None:
        self._tier = tier
        self._finished: list[Any] = []

    def submit_store(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """Copy blocks to their chunks; done on return."""
        return self._finish(job_id, self._tier.store(Transfer.between(src_spec, dst_spec)))

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """Copy chunks to their blocks; done on return."""
        return self._finish(job_id, self._tier.load(Transfer.between(dst_spec, src_spec)))

    def get_finished(self) -> list[Any]:
        """Return the transfers done since the last call, with their bytes and seconds."""
        finished, self._finished = self._finished, []
        return finished

    def wait(self, job_ids: set[int]) -> None:
        """Do nothing: whatever was submitted is done."""

    def _finish(self, job_id: int, copied: Copied) -> bool:
        self._finished.append(
            TransferResult(job_id, success=True, transfer_size=copied.bytes, transfer_time=copied.seconds)
        )
        return True
