"""Whether the deployment came to rest, and gave back what it held: blocks, transfers, requests.

Every client has its answer when a phase is read after. A server that then still holds KV blocks, past the lease
after which NIXL gives up on a lost notification, has leaked them. A server that still works on a request nobody waits
for has a hung one, if only this run talks to it and none of its requests ended in a way that may have left one running.
Where somebody else asks the server, too, what it holds may be theirs.
"""

from collections.abc import Iterator

from harness.checkers.evidence import AFTER, BEFORE, gather
from harness.facts import Deployment
from harness.history import History, Outcome, Scraped, ScrapeFailed
from harness.observe.counters import read_counters
from harness.verdict import Check, Finding, Verdict, worst


def settled(deployment: Deployment, history: History) -> Check:
    """Every reading taken, at rest, and after each phase no more held than before it."""
    readings = tuple(one for one in history.of(Scraped) if one.label in (BEFORE, AFTER))
    judged = [*_unread(history), *(_judged(deployment, history, one) for one in readings)]
    findings = tuple(finding for _, finding in judged if finding is not None)
    verdict = worst(verdict for verdict, _ in judged)
    worst_finding = next((f for v, f in judged if f is not None and v is verdict), None)
    summary = f"{len(readings):,} readings, all taken at rest; nothing was left held"
    if worst_finding is not None:
        summary = f"{worst_finding.subject}: {worst_finding.text}"
    if not judged:
        summary = "no phase was counted: there is no reading of the servers' counters"
    return Check("settled", verdict, summary, findings=findings)


Judged = tuple[Verdict, Finding | None]


def _unread(history: History) -> Iterator[Judged]:
    for failure in (one for one in history.of(ScrapeFailed) if one.label in (BEFORE, AFTER)):
        text = f"no reading {failure.label} {failure.phase}: {failure.cause}"
        yield Verdict.UNKNOWN, Finding(failure.server, text, server=failure.server)
    there = {
        (one.scenario, one.phase, one.server, one.label) for one in history.of(Scraped) if one.label in (BEFORE, AFTER)
    }
    failed = {(one.scenario, one.phase, one.server, one.label) for one in history.of(ScrapeFailed)}
    for scenario, phase, server, label in sorted(there):
        other = BEFORE if label == AFTER else AFTER
        if (scenario, phase, server, other) not in there | failed:
            yield Verdict.UNKNOWN, Finding(server, server=server, text=f"no reading {other} {phase} was recorded")


def _judged(deployment: Deployment, history: History, reading: Scraped) -> Judged:
    leak = _leak(history, reading) if reading.label == AFTER else ""
    theirs = _asked_by_others(deployment, history, reading) if leak else ""
    if leak:
        text = (
            f"{leak}, or belong to other requests than this run's: {theirs}" if theirs else f"{leak}: they were leaked"
        )
        return (Verdict.UNKNOWN if theirs else Verdict.INVALID), Finding(reading.server, text, server=reading.server)
    if reading.settled:
        return Verdict.VALID, None
    text = f"not at rest {reading.label} {reading.phase}: {reading.unsettled_because}"
    hung = reading.label == AFTER and _works(reading) and _must_be_idle(deployment, history, reading)
    return (Verdict.INVALID if hung else Verdict.UNKNOWN), Finding(reading.server, text, server=reading.server)


def _leak(history: History, after: Scraped) -> str:
    """Blocks that are held though nobody is served; empty when there are none."""
    before = history.scrapes(scenario=after.scenario, phase=after.phase, label=BEFORE).get(after.server)
    if before is None or not _idle(after):
        return ""
    held, then = read_counters(after).kv_usage, read_counters(before).kv_usage
    if held is None or then is None or held <= then + 1e-9:
        return ""
    return f"{held:.2%} of its KV blocks are still held after {after.phase}, {then:.2%} before"


def _asked_by_others(deployment: Deployment, history: History, after: Scraped) -> str:
    """How other people's requests show on the server, in words; empty where they do not."""
    for one in gather(deployment, history):
        same_phase = (one.scenario, one.phase) == (after.scenario, after.phase)
        if same_phase and one.others and after.server in [server.name for server in deployment.named(one.server)]:
            return one.others.why
    return ""


def _idle(reading: Scraped) -> bool:
    """Whether it says that it serves nobody; a gauge that cannot be read says nothing."""
    counters = read_counters(reading)
    return counters.running == 0 and counters.waiting == 0


def _works(reading: Scraped) -> bool:
    counters = read_counters(reading)
    return bool(counters.running or counters.waiting)


def _must_be_idle(deployment: Deployment, history: History, reading: Scraped) -> bool:
    operations = history.operations(scenario=reading.scenario, phase=reading.phase)
    return deployment.launched and all(o.outcome is not Outcome.INFO for o in operations)
