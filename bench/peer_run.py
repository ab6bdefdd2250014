"""Runs one load generator once against a fresh stub: the tool on one core, the stub on another."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.metered import FailedError, metered
from bench.peer_tools import Load, Tool, environment
from bench.stamps import Shape, Stamps, Stub, stub
from harness.models.canary import make_canary


@dataclass(frozen=True, slots=True)
class Asked:
    """What a tool is asked to send: so many streams, ``concurrency`` at a time, or ``rate`` a second."""

    streams: int
    concurrency: int
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """What the stub stamped, and CPU seconds of the tool with all its processes and of the stub."""

    stamps: Stamps
    cpu: float
    loading_cpu: float
    """Of the tool, between the arrival of its first request at the stub and the stub's last write."""
    stub_cpu: float

    @property
    def streams(self) -> int:
        """Whole ones."""
        return len(self.stamps.arrived)


def cores() -> tuple[int, int]:
    """The tool's core and the stubs'; the same one if there is no other."""
    found = sorted(os.sched_getaffinity(0))
    return found[-1], found[0]


def run(tool: Tool, shape: Shape, asked: Asked, folder: Path, timeout: float) -> Ran:
    """Raises `FailedError` if the tool fails, takes longer than ``timeout`` seconds or has not sent what it should."""
    model, (core, other) = make_canary(), cores()
    with ExitStack() as stack:
        serving, prefill, decode = (stack.enter_context(stub(shape, other)) for _ in range(3))
        servers = (prefill.url, decode.url)
        load = Load(serving.url, servers, model, folder, shape, asked.streams, asked.concurrency, asked.rate)
        before = _cpu(serving)
        variables = environment(model, folder)
        spent = metered(tool.command(load), core, variables, timeout, accepted=tool.accepted)
        stamps, stub_cpu = serving.take(), _cpu(serving) - before
    if not (served := len(stamps.arrived)) or (tool.exact and served < asked.streams):
        raise FailedError(f"The stub served {served} whole streams of {asked.streams}.\n{spent.output[-3000:]}")
    return Ran(stamps, spent.cpu, spent.between(stamps.arrived.min(), stamps.written.max()), stub_cpu)


def _cpu(serving: Stub) -> float:
    """CPU seconds of a stub so far: fields 14 and 15 of /proc/PID/stat."""
    fields = Path(f"/proc/{serving.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
