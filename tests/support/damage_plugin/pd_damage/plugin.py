"""The hooks in vLLM 0.32's NIXL worker; vLLM calls :func:`register` in each of its processes.

``_read_blocks_for_req`` starts the reads of one request; ``get_transfer_results`` returns the requests whose reads have
ended, at the end of a step, before the scheduler gets them. Both run on the worker's one thread. A prefill worker reads
nothing, and so does no damage.

The hooks are inserted when vLLM itself imports the module, so that an engine loads its modules in the same order with
and without this plugin.

The plugin acts only if ``PD_DAMAGE_ORDERS`` (see :mod:`orders`) and ``PD_DAMAGE_LEDGER`` name files.
"""

import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
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
    """Replace the two methods of the worker's class; doing it again changes nothing."""
    if getattr(worker_class, "pd_damage", None) is not None:
        return
    worker_class.pd_damage = Saboteur(orders, ledger)
    worker_class._read_blocks_for_req = _before(worker_class._read_blocks_for_req)
    worker_class.get_transfer_results = _after(worker_class.get_transfer_results)


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
        succeeded = ended.finished_recving - ended.failed_recving
        worker.pd_damage.after_read(worker, {engine_id: awaited[engine_id] for engine_id in succeeded})
        return ended

    return transfer_results
