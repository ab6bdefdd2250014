"""Checks a deployment before any verdict, and names what its operator should change first.

``check_deployment`` uses what the servers report about themselves; ``check_first_transfers``, ``check_transfer_bytes``
and ``check_proxy_servers`` use the servers' counters over the first requests. Each check returns items: what was
checked, what was found, and the remedy. ``refuse`` raises for the items that make a run useless.
"""

from harness.preflight.check import Expectations, check_deployment
from harness.preflight.compatibility import nixl_handover_expected
from harness.preflight.counter_watch import CounterWatch
from harness.preflight.demand import Demand
from harness.preflight.first_transfers import check_first_transfers, transfers_counted
from harness.preflight.item import Item, Level, NotReady, refuse
from harness.preflight.proxy_servers import all_prompts_counted, check_proxy_servers
from harness.preflight.server_report import ServerReport, has_our_proxy
from harness.preflight.transfer_bytes import check_transfer_bytes

__all__ = [
    "CounterWatch",
    "Demand",
    "Expectations",
    "Item",
    "Level",
    "NotReady",
    "ServerReport",
    "all_prompts_counted",
    "check_deployment",
    "check_first_transfers",
    "check_proxy_servers",
    "check_transfer_bytes",
    "has_our_proxy",
    "nixl_handover_expected",
    "refuse",
    "transfers_counted",
]
