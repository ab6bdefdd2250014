"""Whether the harness's client kept up: a slow client must not be taken for slow servers.

The check is unknown if the client's process was at its limit, the load was sent late, or arrivals were recorded late on
average: measured latencies then include the client's own delays. A single long delay of the event loop is shown, but
does not count: on a machine shared with the servers, the client waits while the servers take the cores.

If workers sent the load, the check is also unknown if a worker's clock is not known well enough: then the order of what
happened, and times from a common schedule, are not known either.
"""

from collections.abc import Iterator

from harness.facts import Deployment
from harness.history import ClientHealth, ClockCompared, History
from harness.verdict import Check, Finding, Verdict

MOST_CPU = 0.9
"""Share of one core. The client has one event loop; beyond this share it measures its own queue."""
MOST_MEAN_LAG = 0.1
"""Seconds by which TTFT and ITL may be too long on average."""
MOST_SEND_DELAY = 1.0
"""Seconds. A load whose requests are sent later than this is milder than its schedule."""
WORST_CLOCK = 0.005
"""Seconds by which a worker's times may be wrong. Medians of TTFT are tens of milliseconds."""
NEAR_CPU = 0.6
"""Share of one core. From here on latencies are a little too long: arrivals wait while another one is read."""
FEW_FILES = 8
"""Sockets. A client that comes so near to the limit cannot open all the connections that it wants."""
_ADVICE = "use a lower concurrency, or a machine with free cores for the client"


def client_health(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """The client kept up with arrivals and with its sending schedule."""
    measured = tuple(history.of(ClientHealth))
    if not measured:
        return Check("client_health", Verdict.UNKNOWN, "the history has no record of how well the client kept up")
    strained = (Finding(one.worker or "client", f"{why}: {_ADVICE}") for one in measured for why in _strained(one))
    compared = tuple(history.of(ClockCompared))
    findings = (*strained, *(_vague(one) for one in compared if _may_be_wrong_by(one) > WORST_CLOCK))
    verdict = Verdict.UNKNOWN if findings else Verdict.VALID
    notes = tuple(_note(one) for one in measured if NEAR_CPU < (one.cpu_share or 0.0) <= MOST_CPU)
    return Check("client_health", verdict, _line(measured) + _clocks(compared), findings=findings, notes=notes)


def _note(one: ClientHealth) -> str:
    return (
        f"{one.worker or 'the client'} used {one.cpu_share:.0%} of a core, which is near its limit: latencies may "
        "include some of its own time; `python -m bench.roofline` shows what a core can do"
    )


def _line(measured: tuple[ClientHealth, ...]) -> str:
    shares = [one.cpu_share for one in measured if one.cpu_share is not None]
    cpu = f"{max(shares):.0%}" if shares else "an unknown share"
    means = [one.mean_loop_lag * 1000 for one in measured if one.mean_loop_lag is not None]
    mean = f"{max(means):,.1f} ms" if means else "an unknown time"
    worst = max(one.worst_loop_lag for one in measured) * 1000
    delay = max(one.worst_send_delay for one in measured) * 1000
    return (
        f"the client used {cpu} of a core; its event loop was {mean} late on average and {worst:,.0f} ms "
        f"at most; requests were sent up to {delay:,.0f} ms late"
    )


def _clocks(compared: tuple[ClockCompared, ...]) -> str:
    if not compared:
        return ""
    workers = len({one.worker for one in compared})
    worst = max(map(_may_be_wrong_by, compared)) * 1000
    return f"; the clocks of {workers} workers agreed with the run's to within {worst:,.1f} ms"


def _may_be_wrong_by(one: ClockCompared) -> float:
    """Seconds by which the worker's times may differ from the run's clock."""
    return one.uncertainty + abs(one.drift)


def _vague(one: ClockCompared) -> Finding:
    text = (
        f"its times may be wrong by {_may_be_wrong_by(one) * 1000:,.1f} ms, more than {WORST_CLOCK * 1000:.0f} ms: use "
        "workers that are nearer in the network and less busy, or fewer of them"
    )
    return Finding(one.worker, text)


def _strained(one: ClientHealth) -> Iterator[str]:
    if one.cpu_share is None:
        yield "the share of a core that it used was not recorded, so it may have limited the load"
    elif one.cpu_share > MOST_CPU:
        yield f"the client's process was at its limit ({one.cpu_share:.0%} of a core), so it limited the load"
    if one.open_files is not None and one.file_limit is not None and one.open_files > one.file_limit - FEW_FILES:
        yield f"it had {one.open_files:,} files and sockets open of {one.file_limit:,} that it may have (ulimit -n)"
    if one.mean_loop_lag is not None and one.mean_loop_lag > MOST_MEAN_LAG:
        yield f"arrivals were recorded {one.mean_loop_lag * 1000:,.0f} ms late on average"
    if one.worst_send_delay > MOST_SEND_DELAY:
        yield f"a request was sent {one.worst_send_delay:,.1f} s after it was due"
