"""Starts the workers that a run asks for: none, processes of this machine, or actors of a Ray cluster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.clock import Clock
from harness.fleet.fleet import Fleet
from harness.fleet.on_ray import ray_workers, require_ray
from harness.fleet.processes import local_workers


@dataclass(frozen=True, slots=True)
class Workers:
    """From where the load is sent."""

    number: int | None = None
    """How many workers; None: one on each node of a Ray cluster, or none without Ray: the main process sends."""
    ray: str | None = None
    """The address of a Ray cluster; None: workers are processes of this machine."""

    @property
    def needed(self) -> bool:
        """Whether there are workers at all."""
        return self.ray is not None or (self.number or 1) > 1

    def require(self) -> None:
        """Raise UsageError if Ray is needed and not installed."""
        if self.ray is not None:
            require_ray()


@asynccontextmanager
async def open_fleet(wanted: Workers, clock: Clock, logs: Path | None = None) -> AsyncIterator[Fleet | None]:
    """Start workers, and end them at the end; None if the main process is to send.

    ``logs``: a directory for the output of processes. Raises UsageError if the Ray cluster cannot be used.
    """
    if not wanted.needed:
        yield None
        return
    opened = local_workers(wanted.number or 1, logs) if wanted.ray is None else ray_workers(wanted.ray, wanted.number)
    async with opened as workers:
        yield Fleet(workers, clock)
