"""Loads: what is sent and when. A load has a scenario, and demands on the servers."""

from harness.loads.arrival import Arrival, Ramp, Stages, Steady
from harness.loads.dataset import DatasetLoad
from harness.loads.natural import NaturalLoad
from harness.loads.prefix_load import PrefixRepetitionLoad
from harness.loads.random_load import RandomLoad
from harness.loads.sharegpt import ShareGptLoad
from harness.loads.trace import TraceLoad

Load = RandomLoad | DatasetLoad | NaturalLoad | PrefixRepetitionLoad | ShareGptLoad | TraceLoad

__all__ = [
    "Arrival",
    "DatasetLoad",
    "Load",
    "NaturalLoad",
    "PrefixRepetitionLoad",
    "Ramp",
    "RandomLoad",
    "ShareGptLoad",
    "Stages",
    "Steady",
    "TraceLoad",
]
