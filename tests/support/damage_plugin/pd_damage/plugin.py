"""The door into vLLM 0.32's NIXL worker; vLLM calls :func:`register` in each of its processes.

``_read_blocks_for_req`` starts the reads of one request; ``get_transfer_results`` says which requests' reads have
ended, at the end of a step, before the scheduler hears of it. Both run on the worker's one thread. A prefill worker
reads nothing, so nothing happens there.

The hooks are put in when vLLM itself imports the module, so that an engine with this plugin loads in the same order as
one without.

Acts only where ``PD_DAMAGE_ORDERS`` (see :mod:`orders`) and ``PD_DAMAGE_LEDGER`` name files.
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
    """Hook the NIXL worker, if the environment asks for it. AttributeError at its import if there is no such door."""
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
    """Lets a module be found as ever, and has something done right after its import."""

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
        awaited = dict(worker._recving_metadata)  # forgotten by the time the results are there
        told = results(worker)
        well = told.finished_recving - told.failed_recving
        worker.pd_damage.after_read(worker, {engine_id: awaited[engine_id] for engine_id in well})
        return told

    return transfer_results
