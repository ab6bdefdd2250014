"""Lets an engine's processes sleep while they wait at their shared queue, so that several engines fit on few cores.

vLLM's engine core and its worker communicate through a queue in shared memory. A waiting process calls ``sched_yield``
in a loop for a second before it sleeps. With fewer free cores than waiting processes, loads stood still, often for
30 s, long enough for leases on the prefill server to expire. Both workers of one such stall were inside ``sched_yield``
for seconds while the core waited for an answer. On that machine (Linux 6.18), three yielding processes beside two that
work half the time each stood still for up to 1.1 s. Sleeping 0.2 ms instead ended the stalls: throughput rose from 3 to
5 requests/s to 34 and 43. Why the kernel delays a yielding process that long was not investigated.

:func:`register` acts only if ``PD_HARNESS_QUEUE_PAUSE_US`` is set, in microseconds. It replaces the name
``sched_yield`` in vLLM's queue module, in this process only. If the module has no such name, it logs a warning: the
engine works without the pause, only slower.
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
    """Make waits at the queue sleep, if the variable is set; raises RuntimeError if it is not a positive integer."""
    text = os.environ.get(PAUSE_VARIABLE)
    if text is None:
        return
    if not text.isdecimal() or int(text) < 1:
        raise RuntimeError(f"{PAUSE_VARIABLE} is {text!r}; it must be a whole number of microseconds above 0.")
    sleep_instead_of_yielding(importlib.import_module(_QUEUE), int(text))


def sleep_instead_of_yielding(queue: object, microseconds: int) -> None:
    """Replace ``sched_yield`` in the module ``queue`` by a sleep; log a warning if the module has no such name."""
    if not hasattr(queue, "sched_yield"):
        _log.warning("%s has no sched_yield: the engine's processes will not sleep at their queue", _QUEUE)
        return
    queue.sched_yield = functools.partial(time.sleep, microseconds * 1e-6)
