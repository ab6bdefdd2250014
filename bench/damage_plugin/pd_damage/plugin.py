"""The hooks in vLLM's NIXL worker (0.26 to 0.32); vLLM calls :func:`register` in each of its processes.

``_read_blocks_for_req`` starts the reads of one request. ``get_transfer_results`` (in 0.26 ``get_finished``) returns
the requests whose reads have ended, at the end of a step, before the scheduler gets them. Both run on the worker's one
thread. A prefill worker reads nothing, and so does no damage.

The hooks are inserted when vLLM itself imports the module, so that an engine loads its modules in the same order with
and without this plugin.

The plugin acts only if ``PD_DAMAGE_ORDERS`` (see :mod:`orders`) and ``PD_DAMAGE_LEDGER`` name files.
"""

import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from .saboteur import Saboteur

DOOR = "vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_worker"

_log = logging.getLogger("vllm.pd_damage")


def register() -> None:
    """Hook the NIXL worker, if the environment asks for this. Its import raises AttributeError without the methods."""
    if not (orders := os.environ.get("PD_DAMAGE_ORDERS")):
        return
    ledger = os.environ["PD_DAMAGE_LEDGER"]

    def enter(module: ModuleType) -> None:
        hook(module.NixlPullConnectorWorker, Path(orders), Path(ledger))
        keep_token_counts(module.NixlConnectorMetadata)
        _log.warning("KV will be damaged as %s orders", orders)

    if DOOR in sys.modules:
        enter(sys.modules[DOOR])
    else:
        sys.meta_path.insert(0, _Doorman(DOOR, enter))


class _Doorman(MetaPathFinder):
    """Finds a module in the usual way, and calls ``then`` right after its import."""

    def __init__(self, name: str, then: Any) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = self._and_then(spec.loader.exec_module)  # type: ignore[method-assign]  # that is the hook
        return spec

    def _and_then(self, execute: Any) -> Any:
        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._then(module)

        return exec_module


def hook(worker_class: Any, orders: Path, ledger: Path) -> None:
    """Replace the methods of the worker's class; doing it again changes nothing."""
    if getattr(worker_class, "pd_damage", None) is not None:
        return
    worker_class.pd_damage = Saboteur(orders, ledger)
    worker_class._read_blocks_for_req = _before(worker_class._read_blocks_for_req)
    if hasattr(worker_class, "get_transfer_results"):
        worker_class.get_transfer_results = _after(worker_class.get_transfer_results)
        return
    failed: set[str] = set()
    worker_class._handle_failed_transfer = _noting(worker_class._handle_failed_transfer, failed)
    worker_class.get_finished = _after_finished(worker_class.get_finished, failed)


def keep_token_counts(metadata_class: Any) -> None:
    """Keep the number of a prompt's tokens beside the blocks to read, where the engine does not (before 0.32)."""
    add = metadata_class.add_new_req_to_recv

    @functools.wraps(add)
    def add_and_keep(metadata: Any, *, request_id: str, kv_transfer_params: Mapping[str, Any], **more: Any) -> None:
        add(metadata, request_id=request_id, kv_transfer_params=kv_transfer_params, **more)
        metadata.reqs_to_recv[request_id].remote.num_tokens = kv_transfer_params.get("remote_num_tokens")

    metadata_class.add_new_req_to_recv = add_and_keep


def _before(read: Any) -> Any:
    @functools.wraps(read)
    def read_blocks(worker: Any, engine_id: str, meta: Any) -> Any:
        worker.pd_damage.before_read(worker, engine_id, meta)
        return read(worker, engine_id, meta)

    return read_blocks


def _after(results: Any) -> Any:
    @functools.wraps(results)
    def transfer_results(worker: Any) -> Any:
        # The worker drops the metadata with the results.
        awaited = dict(worker._recving_metadata)
        ended = results(worker)
        _received(worker, awaited, ended.finished_recving - ended.failed_recving)
        return ended

    return transfer_results


def _after_finished(finished: Any, failed: set[str]) -> Any:
    @functools.wraps(finished)
    def get_finished(worker: Any) -> Any:
        awaited = dict(worker._recving_metadata)
        sent, received = finished(worker)
        _received(worker, awaited, received - failed)
        failed.difference_update(received)
        return sent, received

    return get_finished


def _noting(fail: Any, failed: set[str]) -> Any:
    @functools.wraps(fail)
    def handle_failed_transfer(worker: Any, engine_id: str, *rest: Any) -> Any:
        failed.add(engine_id)
        return fail(worker, engine_id, *rest)

    return handle_failed_transfer


def _received(worker: Any, awaited: Mapping[str, Any], succeeded: Iterable[str]) -> None:
    worker.pd_damage.after_read(worker, {engine_id: awaited[engine_id] for engine_id in succeeded})
