"""Whether a relay's counts show that a fault on a link took hold. Pure."""

from collections.abc import Mapping

from harness.faults.relay_manner import How

Counts = Mapping[str, float]
"""The fields of :class:`harness.faults.relay.Counts`."""

_FELT_S = 0.01
"""Seconds that a byte must have waited on a throttled link. Each byte of such a link waits, however little it is."""


def missing(how: str, counts: Counts) -> str:
    """What the counts lack to be evidence, in words; empty if they lack nothing."""
    match How(how):
        case How.DELAY | How.THROTTLE:
            return _not_held(counts, 0.0 if how == How.DELAY else _FELT_S)
        case How.CUT:
            broken = counts["reset"] or counts["refused"]
            what = f"it cut {'' if broken else 'no '}connections; {_passed(counts)}"
            return "" if broken and not counts["passed"] else what
        case How.HALF_OPEN:
            quiet = counts["swallowed"] and not counts["passed"]
            return "" if quiet else f"it swallowed {counts['swallowed']:,.0f} bytes; {_passed(counts)}"
        case How.IDLE:
            if not counts["dropped"]:
                return "no connection was silent for so long"
            return "" if counts["swallowed"] else "no byte came on a connection that it had forgotten"
        case _:
            return "it was told to pass everything"


def _not_held(counts: Counts, least: float) -> str:
    """What is missing if no byte waited, or none for so long, in seconds."""
    if not counts["held"]:
        return f"it held no byte back; {counts['came']:,.0f} came by"
    felt = counts["longest_hold"] >= least
    return "" if felt else f"no byte waited for {least * 1000:.0f} ms: so few bytes came that it limited none"


def evidence(how: str, counts: Counts) -> str:
    """What the relay counted, in words."""
    match How(how):
        case How.DELAY | How.THROTTLE:
            return f"{counts['held']:,.0f} bytes were held back, for {counts['longest_hold']:.3f} s at most"
        case How.CUT:
            refused = f", {counts['refused']:,.0f} new ones refused" if counts["refused"] else ""
            return f"{counts['reset']:,.0f} connections were reset{refused}, {_passed(counts)}"
        case How.HALF_OPEN:
            return f"{counts['swallowed']:,.0f} bytes were swallowed, {_passed(counts)}"
        case _:
            dropped = f"{counts['dropped']:,.0f} silent connections were forgotten"
            return f"{dropped}, {counts['swallowed']:,.0f} bytes on them swallowed"


def _passed(counts: Counts) -> str:
    return f"{counts['passed']:,.0f} bytes passed"
