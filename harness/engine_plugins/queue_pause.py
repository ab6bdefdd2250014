"""Lets an engine's processes sleep between looks at their shared queue, so that several fit on few cores.

vLLM's engine core and its worker talk through a queue in shared memory, and whoever waits there spins for a second
around ``sched_yield`` before it sleeps. With fewer free cores than spinning processes, loads stood still, often for
30 s, long enough for leases on prefill to expire. In one such stall both workers were seen inside ``sched_yield`` for
seconds while the core waited for an answer; and on that machine (Linux 6.18) three yielding processes beside two that
work half the time each stood still for up to 1.1 s. Sleeping 0.2 ms instead ended the stalls: 34 and 43 requests/s
where 3 to 5 had been. Why the kernel holds a yielding process back that long was not traced.

:func:`register` acts only when ``PD_HARNESS_QUEUE_PAUSE_US`` is set, in microseconds. It replaces the name
``sched_yield`` in vLLM's queue module, in this process alone; where that name is not there it warns, since such an
engine is right, only slower.
"""

import functools
import importlib
import logging
import os
import time

PAUSE_VARIABLE = "PD_HARNESS_QUEUE_PAUSE_US"
_QUEUE = "vllm.distributed.device_communicators.shm_broadcast"

_log = logging.getLogger("vllm.pd_harness_engine_plugins.queue_pause")


def register() -> None:
    """Make waits at the queue sleep; nothing if the variable is unset. Raises RuntimeError if it is no number."""
    text = os.environ.get(PAUSE_VARIABLE)
    if text is None:
        return
    if not text.isdecimal() or int(text) < 1:
        raise RuntimeError(f"{PAUSE_VARIABLE}={text}: give microseconds, a whole number of at least 1.")
    sleep_instead_of_yielding(importlib.import_module(_QUEUE), int(text))


def sleep_instead_of_yielding(queue: object, microseconds: int) -> None:
    """Replace ``sched_yield`` in the module ``queue``."""
    if not hasattr(queue, "sched_yield"):
        _log.warning("%s has no sched_yield: waits at the engine's queue stay as they are", _QUEUE)
        return
    queue.sched_yield = functools.partial(time.sleep, microseconds * 1e-6)
