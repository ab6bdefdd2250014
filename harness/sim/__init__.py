"""A simulated P/D pair with planted bugs: vLLM's HTTP, caches, leases and counters without a model.

It re-implements the engine's documented behaviour from vLLM's source, and shares no code with the oracle: two roads,
compared. ``SimPair`` is the core, no I/O, clock injected; ``start_sim`` puts it on loopback sockets.
"""

from harness.sim.bugs import BUGS, Bug
from harness.sim.config import PlantedBug, SimConfig
from harness.sim.deployment import SimDeployment, SimPair, start_sim
from harness.sim.ledger import Ledger
from harness.sim.noise import QUIET, Noise
from harness.sim.server import SimServer

__all__ = [
    "BUGS",
    "QUIET",
    "Bug",
    "Ledger",
    "Noise",
    "PlantedBug",
    "SimConfig",
    "SimDeployment",
    "SimPair",
    "SimServer",
    "start_sim",
]
