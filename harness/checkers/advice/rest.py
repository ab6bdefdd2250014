"""Advice on deployments that do not settle, processes that died, and workloads whose situation did not occur."""

from harness.checkers.advice.context import Context
from harness.checkers.advice.readings import unusable
from harness.history import Scraped
from harness.verdict import Advice


def of_settled(context: Context) -> Advice:
    """Advice on leaked blocks, hung requests, failed readings, and servers that other people use."""
    if context.invalid:
        return Advice(
            "a request that ended was never released: decode's notification was lost and NIXL's lease (30 s, or "
            "kv_lease_duration) did not free its blocks, or a request hangs in a server",
            "look for the request ids in the servers' logs; raise --settle-timeout-sec to see whether the blocks are "
            "released later",
        )
    if advice := next(unusable(context), None):
        return advice
    if any(not one.settled for one in context.history.of(Scraped)):
        return Advice(
            "somebody else uses the deployment, or a request of this run is still being processed",
            "run when nobody else uses it, or raise --settle-timeout-sec",
        )
    return Advice("the run ended before its counters were read", "run again")


PROCESSES = Advice(
    "the machine ran out of memory, somebody killed the process, or the engine crashed",
    "read the end of its log; if memory ran out, lower --concurrency or make the block pool smaller (--num-gpu-blocks)",
)
AFTER_A_DEATH = Advice("a process that the harness started died during the run", "see processes")
PROVOKED = Advice(
    "the deployment is larger or faster than this workload is made for",
    "launch the deployment that `python -m harness list` names for it (--deployment), or make the block pool smaller "
    "(--num-gpu-blocks)",
)
