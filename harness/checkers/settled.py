"""Whether the deployment settled after each phase, and released its KV blocks and requests.

The reading after a phase is taken when every client has its answer. If a server then still holds more KV blocks than
before the phase, and the lease after which NIXL gives up on a lost notification has passed, it has leaked them. If it
still works on a request, the request hangs, provided that only this run uses the server and that no request of the
phase had outcome ``INFO`` (such a request may still run; one whose client left must have been aborted). If other people
use the server too, blocks and requests may belong to them.
"""

from collections.abc import Iterator

from harness.checkers.by_phase import by_phase
from harness.checkers.evidence import NOT_COUNTED
from harness.checkers.gathering import gather
from harness.checkers.predictions import AFTER, BEFORE
from harness.facts import Deployment
from harness.history import Ending, History, Outcome, Scraped, ScrapeFailed
from harness.observe.counters import read_counters
from harness.verdict import Check, Finding, Verdict, worst


def settled(deployment: Deployment, history: History) -> Check:
    """Every reading was taken when the deployment had settled, and after no phase were more blocks held than before."""
    readings = tuple(one for one in history.of(Scraped) if one.label in (BEFORE, AFTER))
    judged = [*_missing(history), *(_judged(deployment, history, one) for one in readings)]
    findings = tuple(finding for _, finding in judged if finding is not None)
    verdict = worst(verdict for verdict, _ in judged)
    worst_finding = next((f for v, f in judged if f is not None and v is verdict), None)
    summary = f"all {len(readings):,} readings were taken of a settled deployment, and all KV blocks were released"
    if worst_finding is not None:
        summary = f"{worst_finding.subject}: {worst_finding.text}"
    if not judged:
        summary = NOT_COUNTED
    return Check("settled", verdict, summary, findings=findings)


Judged = tuple[Verdict, Finding | None]


def _missing(history: History) -> Iterator[Judged]:
    failures = tuple(history.of(ScrapeFailed))
    for failure in (one for one in failures if one.label in (BEFORE, AFTER)):
        text = f"the reading {failure.label} phase {failure.phase} failed: {failure.cause}"
        yield Verdict.UNKNOWN, Finding(failure.server, text, server=failure.server)
    readings = (one for one in history.of(Scraped) if one.label in (BEFORE, AFTER))
    read = {(one.scenario, one.phase, one.server, one.label) for one in readings}
    known = read | {(one.scenario, one.phase, one.server, one.label) for one in failures}
    for scenario, phase, server, label in sorted(read):
        other = BEFORE if label == AFTER else AFTER
        if (scenario, phase, server, other) not in known:
            yield Verdict.UNKNOWN, Finding(server, server=server, text=f"no reading {other} phase {phase} was recorded")


def _judged(deployment: Deployment, history: History, reading: Scraped) -> Judged:
    leak = _leak(history, reading) if reading.label == AFTER else ""
    theirs = _asked_by_others(deployment, history, reading) if leak else ""
    if leak:
        text = f"{leak}: they were leaked" + (f", or belong to other people's requests: {theirs}" if theirs else "")
        return (Verdict.UNKNOWN if theirs else Verdict.INVALID), Finding(reading.server, text, server=reading.server)
    if reading.settled:
        return Verdict.VALID, None
    text = f"not settled {reading.label} phase {reading.phase}: {reading.unsettled_because}"
    hung = reading.label == AFTER and _is_busy(reading) and _must_be_idle(deployment, history, reading)
    return (Verdict.INVALID if hung else Verdict.UNKNOWN), Finding(reading.server, text, server=reading.server)


def _leak(history: History, after: Scraped) -> str:
    """By how much the KV blocks of an idle server exceed those before the phase, in words; empty if they do not."""
    before = by_phase(history).readings((after.scenario, after.phase), BEFORE).get(after.server)
    if before is None or not _idle(after):
        return ""
    held, then = read_counters(after).kv_usage, read_counters(before).kv_usage
    if held is None or then is None or held <= then + 1e-9:
        return ""
    return f"{held:.2%} of its KV blocks are still held after {after.phase}, {then:.2%} before"


def _asked_by_others(deployment: Deployment, history: History, after: Scraped) -> str:
    """How the server's counters show other people's requests, in words; empty if they show none."""
    for one in gather(deployment, history):
        same_phase = (one.scenario, one.phase) == (after.scenario, after.phase)
        if same_phase and one.others and after.server in [server.name for server in deployment.named(one.server)]:
            return one.others.why
    return ""


def _idle(reading: Scraped) -> bool:
    """Whether the gauges show no requests; False if they could not be read."""
    counters = read_counters(reading)
    return counters.running == 0 and counters.waiting == 0


def _is_busy(reading: Scraped) -> bool:
    counters = read_counters(reading)
    return bool(counters.running or counters.waiting)


def _must_be_idle(deployment: Deployment, history: History, reading: Scraped) -> bool:
    operations = by_phase(history).operations((reading.scenario, reading.phase))
    ended = (o.outcome is not Outcome.INFO or o.ended.ending is Ending.LEFT for o in operations)
    return deployment.launched and all(ended)
