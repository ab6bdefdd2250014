"""Advice on faults that were not caused, not observed, not undone, or not recovered from."""

from harness.checkers.advice.context import Context
from harness.checkers.windows import Window, windows
from harness.verdict import Advice


def of_faults(context: Context) -> Advice:
    """Advice on the first fault that the check found something about."""
    if context.invalid:
        return Advice(
            "the deployment did not come back, or left requests without an end, after a fault that it should survive",
            "look in the servers' and the proxy's logs at the time of the fault (the section faults has it), and "
            "repeat with this fault alone",
        )
    named = {finding.subject for finding in context.check.findings}
    return next((_of(one) for one in windows(context.history) if one.name in named), _NOT_SENT)


def _of(window: Window) -> Advice:
    if window.began is None:
        return Advice(
            "the load was over before the fault was due",
            "give the fault an earlier moment (after=0, when=admitted); a load that is no workload may "
            "also have more requests (--num-prompts), or more time (--duration-sec)",
        )
    if not window.evidence:
        return Advice(
            "the fault hit a process or a link that this load did not use at that moment, or none at all",
            "let it last longer (for=S), send more requests at a time, or choose the moment by what is observed "
            "(when=admitted, when=transferring, when=prefilled)",
        )
    if not window.healed:
        return Advice(
            "what the fault did could not be undone in time: a server takes long to start, or does not start",
            "read the end of the server's log; start a deployment anew before the next run",
        )
    return _NOT_SENT


_NOT_SENT = Advice(
    "the load ended with the fault, or before the deployment had a minute to recover",
    "send more requests (--num-prompts), or a load of a longer time (--duration-sec)",
)
