"""Sends a load from several processes, or from several machines of a Ray cluster, as if from one client."""

from harness.fleet.fleet import Fleet
from harness.fleet.opening import Workers, open_fleet

__all__ = ["Fleet", "Workers", "open_fleet"]
