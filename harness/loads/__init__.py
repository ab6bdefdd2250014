"""Loads: random prompts, or requests from a file. Each says what it needs of the servers, and makes its scenario."""

from harness.loads.dataset import DatasetLoad
from harness.loads.random_load import RandomLoad

Load = RandomLoad | DatasetLoad

__all__ = ["DatasetLoad", "Load", "RandomLoad"]
