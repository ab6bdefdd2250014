"""What a deployment at rest uses: memory, file descriptors and KV blocks. Linux only."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.clock import MonotonicClock
from harness.facts import Server
from harness.observe.values import values_now

MEMORY, DESCRIPTORS, BLOCKS = "memory", "descriptors", "KV blocks"
"""The measures: KiB of resident memory, open file descriptors, and blocks of the KV pool that requests hold."""
_UNITS = {MEMORY: "KiB", DESCRIPTORS: "descriptors", BLOCKS: "KV blocks"}
_HARNESS = "harness"
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024
_READINGS, _PAUSE = 3, 0.1
"""Blocks are read so many times, so many seconds apart, and the least counts: a transfer's last blocks are released
when P has been notified of its end."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurements after a number of requests."""

    requests: int
    values: Mapping[tuple[str, str], float]
    """By part of the deployment (``decode-0``, ``proxy``, ``harness``) and measure."""

    @property
    def text(self) -> str:
        """All measurements in one line."""
        parts = dict.fromkeys(part for part, _ in self.values)
        return "; ".join(f"{part} {', '.join(self._of(part))}" for part in parts)

    def _of(self, part: str) -> Iterator[str]:
        for (of, measure), value in self.values.items():
            if of == part:
                yield f"{value:,.0f} {_UNITS[measure]}"


def blocks_held(usage: float, server: Server) -> int | None:
    """How many blocks a server's requests hold; None if its pool is unknown.

    ``usage`` is the gauge ``vllm:kv_cache_usage_perc``, summed over the server's engines: the share of the pool, less
    its null block, that is not free (``BlockPool.get_usage``). Blocks that are only cached are free.
    """
    return None if server.num_blocks is None else round(usage * (server.num_blocks - 1))


def sample(deployment: harness.RunningDeployment, requests: int) -> Sample:
    """Measure now. A command's descendants are counted with it."""
    started = deployment.processes
    parts = {} if started is None else {name: started.pids(name) for name in started.names()}
    values: dict[tuple[str, str], float] = {}
    for name, pids in {**parts, _HARNESS: (os.getpid(),)}.items():
        values[name, MEMORY] = sum(map(_resident_kib, pids))
        values[name, DESCRIPTORS] = sum(map(_descriptors, pids))
    values |= dict(_blocks(deployment))
    return Sample(requests, values)


def _resident_kib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_KIB


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _blocks(deployment: harness.RunningDeployment) -> Iterator[tuple[tuple[str, str], float]]:
    for server in deployment.facts.servers:
        held = [blocks_held(usage, server) for usage in _usages(deployment, server)]
        least = min((one for one in held if one is not None), default=None)
        if least is not None:
            yield (server.name, BLOCKS), least


def _usages(deployment: harness.RunningDeployment, server: Server) -> Iterator[float]:
    for reading in range(_READINGS):
        if reading:
            time.sleep(_PAUSE)
        values = asyncio.run(values_now(deployment.facts, server.name, clock=MonotonicClock(), headers={}))
        if "kv_usage" in values:
            yield values["kv_usage"]
