"""Whether the situation that a scenario is to bring about occurred: a case that did not occur was not tested.

Counters are compared from each reading of the scenario to the next, also over phases between them that are not counted.
Of a server that was restarted meanwhile, what it counted since is known to have grown.
"""

from collections.abc import Iterator
from itertools import pairwise

from harness.facts import Deployment
from harness.history import History, Operation, Scraped
from harness.observe.counters import Counters, read_counters
from harness.observe.growth import Delta, delta, since_start
from harness.scenario import Situation
from harness.verdict import Check, Finding, Verdict


def provoked(deployment: Deployment, own: History, situation: Situation) -> Check:
    """The check ``provoked``. ``own``: the scenario's entries."""
    grown = {name: _grown(deployment, own, name) for name in situation.counters}
    missing = [*_missing(grown), *_did_not_wait(own, situation.waits)]
    if missing:
        findings = tuple(Finding("deployment", text) for text in missing)
        text = f"{missing[0]}: the situation that this workload tests did not occur"
        return Check("provoked", Verdict.UNKNOWN, text, findings=findings)
    seen = [f"{name} grew by {value:,}" for name, value in grown.items()]
    seen += [f"a request waited for {_longest(own):.1f} s after prefill"] if situation.waits else []
    return Check("provoked", Verdict.VALID, ", ".join(seen))


def _missing(grown: dict[str, float]) -> Iterator[str]:
    return (f"{name} did not grow on any server" for name, value in grown.items() if not value)


def _did_not_wait(own: History, seconds: float) -> Iterator[str]:
    if seconds and (longest := _longest(own)) <= seconds:
        yield f"no request is known to have waited for {seconds:g} s after prefill ({longest:.1f} s at most)"


def _longest(own: History) -> float:
    return max((_waited(one) for one in own.operations() if one.request.of_load), default=0.0)


def _waited(operation: Operation) -> float:
    """Seconds from prefill's answer to the first token; 0 if the proxy does not say when prefill answered."""
    ended, sent = operation.ended, operation.sent.at
    if not ended.token_times or ended.proxy_seconds is None or ended.prefill_seconds is None:
        return 0.0
    return ended.token_times[0] - sent - ended.proxy_seconds - ended.prefill_seconds


def _grown(deployment: Deployment, own: History, counter: str) -> float:
    """By how much the counter grew on all servers."""
    return sum(grown for server in deployment.servers for grown in _steps(own, server.name, counter) if grown > 0)


def _steps(own: History, server: str, counter: str) -> Iterator[float]:
    readings = [read_counters(one) for one in own.of(Scraped) if one.server == server]
    return (_step(before, after).of(counter) or 0.0 for before, after in pairwise(readings))


def _step(before: Counters, after: Counters) -> Delta:
    restarted = None not in (before.process_start, after.process_start) and before.process_start != after.process_start
    return since_start(after) if restarted else delta(before, after)
