"""What can be seen of a deployment before anything is judged, and what its operator should put right first.

``look`` asks the servers for what they say of themselves; ``taken``, ``volume`` and ``leads_to`` judge the first
requests by the servers' counters. Each gives items: what was looked at, what was seen, and the remedy. ``refuse``
raises for those that stop a run.
"""

from harness.preflight.asking import Watch
from harness.preflight.check import Questions, look
from harness.preflight.gateway import arrived, leads_to
from harness.preflight.handover import taken, took
from harness.preflight.item import Item, Level, NotReady, refuse
from harness.preflight.servers import asks_nixl
from harness.preflight.told import Told, has_our_proxy
from harness.preflight.volume import volume

__all__ = [
    "Item",
    "Level",
    "NotReady",
    "Questions",
    "Told",
    "Watch",
    "arrived",
    "asks_nixl",
    "has_our_proxy",
    "leads_to",
    "look",
    "refuse",
    "taken",
    "took",
    "volume",
]
