"""One scenario's part of a run's judgement.

Counters are predicted for the whole run, since what one scenario leaves in the caches changes what the next is served
from; a scenario's part of them is picked out. Likewise noise is measured for the whole run, and each output judged by
it; a scenario's part has its own outputs, wherever in the run their verification was. Completion and rest are judged
from its own entries alone.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from harness.checkers.advice import advised
from harness.checkers.client_health import client_health
from harness.checkers.completion import completion
from harness.checkers.compose import Checker, judge
from harness.checkers.evidence import first_problem, gather
from harness.checkers.processes import excused
from harness.checkers.settled import settled
from harness.checkers.streaming import streaming, streams_that_tell
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
from harness.verify.judging import OutputEvidence, look_at_outputs, part_of

FEWEST_STREAMS = 32
"""Streamed answers. A case asks for a few short ones, often one after another; of a quick engine each may well arrive
in one piece (18 of 18 in a case of the catalogue on the simulated pair), which says nothing about streaming."""
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
    checks = tuple(excused(check, history) for check in checks)
    return Judgement(advised(deployment, own, checks, asked=asked), part.counts)


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
        found = tuple(finding for finding in check.findings if finding.request in asked)
        if found and not check.comparisons and check.name not in _BY_ITSELF:
            yield Check(check.name, check.verdict, f"{found[0].subject}: {found[0].text}", findings=found)


def of_nobody(
    deployment: Deployment, history: History, judgement: Judgement, parts: Mapping[str, Judgement]
) -> Judgement | None:
    """What is not valid in the run as a whole, and stands in none of its scenarios' parts; None where nothing is.

    ``parts``: judgements of scenarios by their name. Unknown counts as it does in a plain run: that the client did not
    keep up, say, leaves the whole run in doubt, and no scenario tells of it. One thing is excepted: that no stream was
    seen to flow, where fewer than ``FEWEST_STREAMS`` answers were there to see it by.
    """
    left = [one for check in judgement.checks if (one := _left(check, parts)) is not None]
    if history.ended_early:
        # Then each part is unknown already, by its completion; that readings are missing is a consequence.
        left = [one for one in left if one.verdict is Verdict.INVALID]
    if streams_that_tell(deployment, history) < FEWEST_STREAMS:
        left = [one for one in left if (one.name, one.verdict) != ("streaming", Verdict.UNKNOWN)]
    return Judgement(tuple(left), Outputs(0, 0, 0, 0, 0)) if left else None


def of_run(deployment: Deployment, history: History, parts: Mapping[str, Judgement]) -> Judgement | None:
    """:func:`of_nobody` of a part of a session, of which ``history`` holds the entries: what needs no earlier ones."""
    return of_nobody(
        deployment, history, judge(deployment, history, [(checker, None) for checker in _OWN_ENTRIES]), parts
    )


_OWN_ENTRIES: tuple[Checker, ...] = (completion, settled, streaming, client_health)
# Counters are left out: what they must say depends on what was in the caches before.


def _left(check: Check, parts: Mapping[str, Judgement]) -> Check | None:
    """The check, less what is told in a scenario's part; None where nothing is left."""
    if check.verdict is Verdict.VALID:
        return None
    if check.comparisons and check.verdict is worst(one.verdict for one in check.comparisons):
        return _left_counters(check, parts)
    own = [one for part in parts.values() for one in part.checks if one.name == check.name]
    told = {(finding.subject, finding.text) for one in own for finding in one.findings}
    asked = {finding.subject for one in own for finding in one.findings if one.name not in _OF_SERVERS}
    untold = tuple(one for one in check.findings if (one.subject, one.text) not in told and one.subject not in asked)
    if len(untold) == len(check.findings):
        # Nothing of it is itemised in a part; without items, a part that is as bad tells of it.
        return None if not untold and any(one.verdict in (check.verdict, Verdict.INVALID) for one in own) else check
    if not untold:
        return None
    # What is told may be all that made it invalid.
    return replace(check, verdict=Verdict.UNKNOWN, summary=f"{untold[0].subject}: {untold[0].text}", findings=untold)


_OF_SERVERS = ("settled",)
# Checks whose findings are about servers: another one of the same server is another matter.


def _left_counters(check: Check, parts: Mapping[str, Judgement]) -> Check | None:
    left = tuple(one for one in check.comparisons if one.scenario not in parts)
    verdict = worst(one.verdict for one in left) if left else Verdict.VALID
    if verdict is Verdict.VALID:
        return None
    return Check(check.name, verdict, first_problem(left), left, advice=check.advice)


def _provoked(deployment: Deployment, own: History, counter: str) -> Check:
    grown = [one.delta.of(counter) for one in gather(deployment, own)]
    if any(grown):
        return Check("provoked", Verdict.VALID, f"{counter} grew by {sum(value or 0 for value in grown):,}")
    text = f"{counter} did not grow on any server: what this case is about did not happen"
    return Check("provoked", Verdict.UNKNOWN, text, findings=(Finding("deployment", text),))
