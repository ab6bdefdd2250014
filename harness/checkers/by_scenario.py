"""One scenario's part of a run's judgement.

Counters are predicted for the whole run, since what one scenario leaves in the caches changes what the next is served
from; a scenario's part of them is picked out. Completion, outputs and rest are judged from its own entries alone.
"""

from collections.abc import Iterator

from harness.checkers.completion import completion
from harness.checkers.evidence import first_problem, gather
from harness.checkers.outputs import compare_outputs, count_outputs, outputs
from harness.checkers.settled import settled
from harness.facts import Deployment
from harness.history import ClientHealth, Ended, Entry, History, NoiseMeasured, Noted, RunEnded, RunStarted, Sent
from harness.verdict import Check, Finding, Judgement, Verdict, worst

_OF_THE_RUN = (RunStarted, RunEnded, Noted, NoiseMeasured, ClientHealth)


def judge_scenario(
    deployment: Deployment, history: History, judgement: Judgement, scenario: str, *, provokes: str | None = None
) -> Judgement:
    """The checks of one scenario; ``judgement`` is the whole run's.

    ``provokes``: a counter that must have grown on some server during it, or the scenario did not happen.
    """
    own = of_scenario(history, scenario)
    checks = (
        completion(deployment, own),
        *([outputs(deployment, own)] if compare_outputs(own) else ()),
        *_counters(judgement, scenario),
        settled(deployment, own),
        *([_provoked(deployment, own, provokes)] if provokes else ()),
    )
    return Judgement(checks, count_outputs(own))


def of_scenario(history: History, scenario: str) -> History:
    """The scenario's entries, and those of the run as a whole."""
    return History(tuple(_entries(history, scenario)))


def seconds_of(history: History, scenario: str) -> float:
    """From its first entry to its last."""
    times = [entry.at for entry in _entries(history, scenario) if not isinstance(entry, _OF_THE_RUN)]
    return max(times) - min(times) if times else 0.0


def _entries(history: History, scenario: str) -> Iterator[Entry]:
    own: set[str] = set()
    for entry in history.entries:
        if isinstance(entry, _OF_THE_RUN):
            yield entry
        elif isinstance(entry, Ended):
            if entry.request_id in own:
                yield entry
        elif entry.scenario == scenario:
            if isinstance(entry, Sent):
                own.add(entry.request.request_id)
            yield entry


def _counters(judgement: Judgement, scenario: str) -> Iterator[Check]:
    for check in judgement.checks:
        parts = tuple(one for one in check.comparisons if one.scenario == scenario)
        if parts:
            verdict = worst(part.verdict for part in parts)
            yield Check(check.name, verdict, first_problem(parts) or "as predicted", parts)


def _provoked(deployment: Deployment, own: History, counter: str) -> Check:
    grown = [one.delta.of(counter) for one in gather(deployment, own)]
    if any(grown):
        return Check("provoked", Verdict.VALID, f"{counter} grew by {sum(value or 0 for value in grown):,}")
    text = f"{counter} did not grow on any server: what this case is about did not happen"
    return Check("provoked", Verdict.UNKNOWN, text, findings=(Finding("deployment", text),))
