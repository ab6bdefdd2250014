"""A simulated P/D pair that can have planted bugs: vLLM's HTTP API, caches, leases and counters, without a real model.

The simulation re-implements vLLM's behaviour from its source and shares no code with the oracle, so that each checks
the other.

``SimPair`` is the core: it does no I/O, and its clock is injected. ``start_sim`` serves it on loopback, in one process.
``start_alone`` serves one server of a deployment whose servers have a process each.
"""

from harness.sim.alone import AloneServer, start_alone
from harness.sim.bugs import BUGS, Bug
from harness.sim.config import PlantedBug, SimConfig
from harness.sim.deployment import SimDeployment, SimPair, start_sim
from harness.sim.ledger import Ledger
from harness.sim.noise import KINDS, QUIET, USUAL, Noise, check_kind
from harness.sim.server import SimServer

__all__ = [
    "BUGS",
    "KINDS",
    "QUIET",
    "USUAL",
    "AloneServer",
    "Bug",
    "Ledger",
    "Noise",
    "PlantedBug",
    "SimConfig",
    "SimDeployment",
    "SimPair",
    "SimServer",
    "check_kind",
    "start_alone",
    "start_sim",
]
