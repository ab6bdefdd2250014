"""Whether the harness itself kept up: a client that was late must not be taken for a server that was.

A single long delay of the event loop is only told: on a machine that the servers share, they take the cores now and
then, and what is late then is everything, not the client. What makes the figures the client's own is a process that
is at its limit, a load that is sent late, or arrivals that are recorded late on average.
"""

from collections.abc import Iterator

from harness.facts import Deployment
from harness.history import ClientHealth, History
from harness.verdict import Check, Finding, Verdict

MOST_CPU = 0.9
"""Of one core: the client has one event loop, and beyond this it is the queue that it measures."""
MOST_MEAN_LAG = 0.1
"""Seconds. TTFT and ITL are then that much too long on average."""
MOST_SEND_DELAY = 1.0
"""Seconds. A load that is sent so much later than its schedule wants is another, milder load."""
_ADVICE = "use a lower concurrency, or a machine with free cores for the client"


def client_health(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """The client's event loop and its sending kept up."""
    measured = tuple(history.of(ClientHealth))
    if not measured:
        return Check("client_health", Verdict.UNKNOWN, "how well the client kept up was not recorded")
    findings = tuple(Finding("client", f"{why}: {_ADVICE}") for one in measured for why in _strained(one))
    verdict = Verdict.UNKNOWN if findings else Verdict.VALID
    return Check("client_health", verdict, _line(measured), findings=findings)


def _line(measured: tuple[ClientHealth, ...]) -> str:
    cpu = max(one.cpu_share for one in measured)
    mean = max(one.mean_loop_lag for one in measured) * 1000
    worst = max(one.worst_loop_lag for one in measured) * 1000
    delay = max(one.worst_send_delay for one in measured) * 1000
    return (
        f"the client used {cpu:.0%} of a core; its event loop was {mean:,.1f} ms late on average, {worst:,.0f} ms at "
        f"most, its sending {delay:,.0f} ms at most"
    )


def _strained(one: ClientHealth) -> Iterator[str]:
    if one.cpu_share > MOST_CPU:
        yield f"the client's process was at its limit ({one.cpu_share:.0%} of a core), so it set the pace"
    if one.mean_loop_lag > MOST_MEAN_LAG:
        yield f"arrivals were recorded {one.mean_loop_lag * 1000:,.0f} ms late on average"
    if one.worst_send_delay > MOST_SEND_DELAY:
        yield f"a request was sent {one.worst_send_delay:,.1f} s after it was due"
