"""Whether the harness itself kept up: a client that was late must not be taken for a server that was."""

from harness.facts import Deployment
from harness.history import ClientHealth, History
from harness.verdict import Check, Finding, Verdict

WORST_LOOP_LAG = 1.0
"""Seconds. A token's arrival may be recorded that much too late; beyond it tails of ITL and TTFT are the client's."""
WORST_SEND_DELAY = 1.0
"""Seconds. A load that is sent so much later than its schedule wants is another, milder load."""


def client_health(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """The client's event loop and its sending kept up."""
    measured = tuple(history.of(ClientHealth))
    if not measured:
        return Check("client_health", Verdict.UNKNOWN, "how well the client kept up was not recorded")
    lag = max(one.worst_loop_lag for one in measured)
    delay = max(one.worst_send_delay for one in measured)
    line = f"the client's event loop was at most {lag * 1000:,.0f} ms late, its sending {delay * 1000:,.0f} ms"
    if lag <= WORST_LOOP_LAG and delay <= WORST_SEND_DELAY:
        return Check("client_health", Verdict.VALID, line)
    text = "the client could not keep up: use a lower concurrency, or a machine with free cores for the client"
    return Check("client_health", Verdict.UNKNOWN, f"{line}: {text}", findings=(Finding("client", text),))
