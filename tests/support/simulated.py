"""A simulated deployment that answers over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from harness.sim import QUIET, SimConfig, start_sim
from harness.sim.deployment import SimDeployment


@asynccontextmanager
async def simulated(**fields: Any) -> AsyncIterator[SimDeployment]:
    """A deployment without noise, with these fields of ``SimConfig``; stopped at the end."""
    deployment = await start_sim(SimConfig(noise=QUIET, **fields))
    try:
        yield deployment
    finally:
        await deployment.stop()
