"""Loads: random prompts, or requests from a file. A load has a scenario, and demands on the servers."""

from harness.loads.dataset import DatasetLoad
from harness.loads.random_load import RandomLoad

Load = RandomLoad | DatasetLoad

__all__ = ["DatasetLoad", "Load", "RandomLoad"]
