"""One scenario's part of a run's judgement.

Counters are predicted for the whole run, since what one scenario leaves in the caches changes what the next is served
from; a scenario's part of them is picked out. Likewise noise is measured for the whole run, and each output judged by
it; a scenario's part has its own outputs, wherever in the run their verification was. Completion and rest are judged
from its own entries alone.
"""

from collections.abc import Collection, Iterable, Iterator

from harness.checkers.completion import completion
from harness.checkers.evidence import first_problem, gather
from harness.checkers.outputs import OutputEvidence, look_at_outputs, part_of
from harness.checkers.settled import settled
from harness.facts import Deployment
from harness.history import (
    ClientHealth,
    Decoding,
    Ended,
    Entry,
    History,
    NoiseMeasured,
    Noted,
    RunEnded,
    RunStarted,
    Sent,
)
from harness.verdict import Check, Finding, Judgement, Outputs, Verdict, worst

_BY_ITSELF = ("completion", "outputs", "settled")
# Checks that each scenario has of its own.
_OF_THE_RUN = (RunStarted, RunEnded, Noted, NoiseMeasured, Decoding, ClientHealth)


def judge_scenario(  # noqa: PLR0913 - two that can be told from the rest come last; keyword-only
    deployment: Deployment,
    history: History,
    judgement: Judgement,
    scenario: str,
    *,
    provokes: str | None = None,
    compared: OutputEvidence | None = None,
) -> Judgement:
    """The checks of one scenario; ``judgement`` is the whole run's.

    ``provokes``: a counter that must have grown on some server during it, or the scenario did not happen.
    ``compared``: the whole run's outputs, where they were looked at already.
    """
    own = of_scenario(history, scenario)
    asked = {operation.request.request_id for operation in own.operations()}
    part = part_of(deployment, history, compared or look_at_outputs(history), asked)
    checks = (
        completion(deployment, own),
        *([part.check] if part.check else ()),
        *_counters(judgement, scenario),
        *_laid_to(judgement, asked),
        settled(deployment, own),
        *([_provoked(deployment, own, provokes)] if provokes else ()),
    )
    return Judgement(checks, part.counts)


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


def _laid_to(judgement: Judgement, asked: Collection[str]) -> Iterator[Check]:
    """Checks of the run as a whole that found something about a request of the scenario."""
    for check in judgement.checks:
        found = tuple(finding for finding in check.findings if finding.subject in asked)
        if found and not check.comparisons and check.name not in _BY_ITSELF:
            yield Check(check.name, check.verdict, f"{found[0].subject}: {found[0].text}", findings=found)


def of_nobody(judgement: Judgement, parts: Iterable[Judgement]) -> Judgement | None:
    """What is wrong with the run, and stands in none of its scenarios' parts; None where nothing is.

    What is only unknown there is no scenario's question: whether streams flow, and whether the client kept up, takes
    more requests to tell than most have.
    """
    told = {check.name for part in parts for check in part.checks if check.verdict is Verdict.INVALID}
    left = tuple(one for one in judgement.checks if one.verdict is Verdict.INVALID and one.name not in told)
    return Judgement(left, Outputs(0, 0, 0, 0, 0)) if left else None


def _provoked(deployment: Deployment, own: History, counter: str) -> Check:
    grown = [one.delta.of(counter) for one in gather(deployment, own)]
    if any(grown):
        return Check("provoked", Verdict.VALID, f"{counter} grew by {sum(value or 0 for value in grown):,}")
    text = f"{counter} did not grow on any server: what this case is about did not happen"
    return Check("provoked", Verdict.UNKNOWN, text, findings=(Finding("deployment", text),))
