"""Advice on deployments that do not come to rest, and on cases that did not happen."""

from harness.checkers.advice.context import Context
from harness.checkers.advice.readings import unusable
from harness.history import Scraped
from harness.verdict import Advice

LEASE = "NIXL's lease (30 s unless kv_lease_duration says otherwise)"


def of_settled(context: Context) -> Advice:
    """Leaked or hung, unread, or busy with somebody else's requests."""
    if context.invalid:
        return Advice(
            f"a request that ended was never released: decode's notification was lost and {LEASE} did not free its "
            "blocks, or a request hangs in a server",
            "look for the request ids in the servers' logs; raise --settle-timeout-sec to see whether they come back",
        )
    if advice := next(unusable(context), None):
        return advice
    if any(not one.settled for one in context.history.of(Scraped)):
        return Advice(
            "somebody else uses the deployment, or a request of this run is still being worked on",
            "run when nobody else asks, or raise --settle-timeout-sec",
        )
    return Advice("the run ended before its counters were read", "run again")


PROCESSES = Advice(
    "the machine ran out of memory, somebody ended the process, or the engine failed by a fault of its own",
    "read its log to the end; for want of memory give it less to do (a lower --concurrency) or a smaller pool "
    "(--num-gpu-blocks)",
)
AFTER_A_DEATH = Advice("a process that the harness had started died during the run", "see processes")
PROVOKED = Advice(
    "the deployment is larger, or faster, than this case is made for",
    "launch the deployment that `list` names for it (--deployment), or a smaller pool (--num-gpu-blocks)",
)
