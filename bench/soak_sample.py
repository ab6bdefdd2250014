"""What a deployment at rest uses: memory, file descriptors and KV blocks. Linux only."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.clock import MonotonicClock
from harness.facts import Server
from harness.observe.values import values_now

_HARNESS = "harness"
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurements after a number of requests."""

    requests: int
    values: Mapping[tuple[str, str], float]
    """By part of the deployment (``decode-0``, ``proxy``, ``harness``) and measure."""

    @property
    def text(self) -> str:
        """All measurements in one line."""
        return ", ".join(f"{part} {value:,.0f} {measure}" for (part, measure), value in self.values.items())


def sample(deployment: harness.RunningDeployment, requests: int) -> Sample:
    """Measure now. A command's descendants are counted with it."""
    started = deployment.processes
    parts = {} if started is None else {name: started.pids(name) for name in started.names()}
    values: dict[tuple[str, str], float] = {}
    for name, pids in {**parts, _HARNESS: (os.getpid(),)}.items():
        values[name, "memory"] = sum(map(_resident_kib, pids))
        values[name, "descriptors"] = sum(map(_descriptors, pids))
    values |= dict(_blocks(deployment))
    return Sample(requests, values)


def _resident_kib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_KIB


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _blocks(deployment: harness.RunningDeployment) -> Iterator[tuple[tuple[str, str], float]]:
    for server in deployment.facts.servers:
        used = asyncio.run(_usage(deployment, server))
        if used is not None and server.num_blocks:
            yield (server.name, "KV blocks"), used * server.num_blocks


async def _usage(deployment: harness.RunningDeployment, server: Server) -> float | None:
    read = await values_now(deployment.facts, server.name, clock=MonotonicClock(), headers={})
    return read.get("kv_usage")
