"""One scenario's part of a run's judgement.

Counters are predicted for the whole run, because one scenario's blocks in the caches change the hits of the next; a
scenario's part has the comparisons of its own phases. Noise is measured for the whole run; a scenario's part has its
own outputs, wherever in the run they were verified. ``completion`` and ``settled`` only need the scenario's own
entries.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from harness.checkers.advice import advised
from harness.checkers.client_health import client_health
from harness.checkers.completion import completion
from harness.checkers.compose import Checker, judge
from harness.checkers.evidence import first_problem
from harness.checkers.faults import faults
from harness.checkers.processes import excused
from harness.checkers.provoked import provoked
from harness.checkers.settled import settled
from harness.checkers.streaming import conclusive_streams, streaming
from harness.checkers.windows import windows
from harness.facts import Deployment
from harness.history import (
    ClientHealth,
    ClockCompared,
    Decoding,
    Ended,
    Entry,
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    FaultProved,
    History,
    NoiseMeasured,
    Noted,
    PhaseStarted,
    RunEnded,
    RunStarted,
    Sampled,
    Sent,
    VerificationPlanned,
)
from harness.scenario import Situation
from harness.verdict import Check, Judgement, Verdict, worst
from harness.verify.judging import OutputEvidence, look_at_outputs, part_of

FEWEST_STREAMS = 32
"""Fewer streamed answers say nothing about streaming: a workload has a few short ones, and from a quick engine each may
arrive in one piece (18 of 18 in a workload of the catalogue on the simulated pair)."""
_PER_SCENARIO = ("completion", "outputs", "settled")
"""Checks that are made for each scenario."""
_OF_THE_RUN = (
    *(RunStarted, RunEnded, Noted, NoiseMeasured, Decoding, VerificationPlanned, ClientHealth, ClockCompared),
)
"""Entries that belong to every scenario."""
_OF_A_FAULT = (FaultPlanned, FaultBegan, FaultProved, FaultHealed)


def judge_scenario(  # noqa: PLR0913 - the last three are optional and keyword-only
    deployment: Deployment,
    history: History,
    judgement: Judgement,
    scenario: str,
    *,
    provokes: Situation | None = None,
    faulted: bool = False,
    compared: OutputEvidence | None = None,
) -> Judgement:
    """The checks of one scenario; ``judgement``: that of the whole run.

    ``provokes``: the situation that the scenario is to bring about.
    ``faulted``: whether the scenario tests nothing without faults. ``compared``: the evidence about the whole run's
    outputs, if it was collected already.
    """
    own = History(tuple(_entries(history, scenario)))
    asked = {operation.request.request_id for operation in own.operations()}
    part = part_of(deployment, history, compared or look_at_outputs(history), asked)
    checks = (
        *([faults(deployment, own)] if faulted or windows(own) else ()),
        completion(deployment, own),
        *([part.check] if part.check else ()),
        *_counters(judgement, scenario),
        *_about_requests(judgement, asked),
        settled(deployment, own),
        *([provoked(deployment, own, provokes)] if provokes else ()),
    )
    checks = tuple(excused(check, history) for check in checks)
    return Judgement(advised(deployment, own, checks, asked=asked), part.counts)


def seconds_of(history: History, scenario: str) -> float:
    """Seconds from the scenario's first entry to its last."""
    not_own = (*_OF_THE_RUN, *_OF_A_FAULT)
    times = [entry.at for entry in _entries(history, scenario) if not isinstance(entry, not_own)]
    return max(times) - min(times) if times else 0.0


def _entries(history: History, scenario: str) -> Iterator[Entry]:
    """The scenario's entries, those of its faults, and those of the run as a whole; without what checkers ignore."""
    own: set[str] = set()
    at_work = _faults_of(history, scenario)
    for entry in history.entries:
        if isinstance(entry, _OF_THE_RUN):
            yield entry
        elif isinstance(entry, Sampled):
            continue
        elif isinstance(entry, _OF_A_FAULT):
            if entry.fault in at_work:
                yield entry
        elif isinstance(entry, Ended):
            if entry.request_id in own:
                yield entry
        elif entry.scenario == scenario:
            if isinstance(entry, Sent):
                own.add(entry.request.request_id)
            yield entry


def _faults_of(history: History, scenario: str) -> set[str]:
    """The names of the scenario's own faults, and of earlier ones that were still at work when it began."""
    found = windows(history)
    begins = [one.at for one in history.of(PhaseStarted) if one.scenario == scenario] if found else []
    began = min(begins, default=math.inf)
    earlier = (one for one in found if one.began is not None and one.began < began <= one.end)
    return {one.name for one in (*earlier, *(one for one in found if one.planned.scenario == scenario))}


def _counters(judgement: Judgement, scenario: str) -> Iterator[Check]:
    for check in judgement.checks:
        parts = tuple(one for one in check.comparisons if one.scenario == scenario)
        if parts:
            verdict = worst(part.verdict for part in parts)
            yield Check(check.name, verdict, first_problem(parts) or "as predicted", parts)


def _about_requests(judgement: Judgement, asked: Collection[str]) -> Iterator[Check]:
    """Checks of the whole run with findings about requests of the scenario."""
    for check in judgement.checks:
        found = tuple(finding for finding in check.findings if finding.request in asked)
        if found and not check.comparisons and check.name not in _PER_SCENARIO:
            yield Check(check.name, check.verdict, f"{found[0].subject}: {found[0].text}", findings=found)


def judge_rest(
    deployment: Deployment, history: History, judgement: Judgement | None, parts: Mapping[str, Judgement]
) -> Judgement | None:
    """The run's checks that are not valid for a reason in no scenario's part; None if there are none.

    ``judgement``: that of the whole run; None if ``history`` is only a part of a session, whose counters cannot be
    judged alone. ``parts``: the scenarios' judgements by name. An unknown check counts: for example, a client that did
    not keep up leaves the whole run unknown. Only an unknown ``streaming`` with fewer than ``FEWEST_STREAMS``
    conclusive streams is left out.
    """
    judgement = judgement or judge(deployment, history, [(checker, None) for checker in _OWN_ENTRIES])
    left = [one for check in judgement.checks if (one := _left(check, parts)) is not None]
    if history.ended_early:
        # Each part's check "completion" is unknown already, and readings are missing for the same reason.
        left = [one for one in left if one.verdict is Verdict.INVALID]
    if conclusive_streams(deployment, history) < FEWEST_STREAMS:
        left = [one for one in left if (one.name, one.verdict) != ("streaming", Verdict.UNKNOWN)]
    return Judgement(tuple(left)) if left else None


_OWN_ENTRIES: tuple[Checker, ...] = (completion, settled, streaming, client_health)
"""Checkers that need no earlier entries. Predictions of counters depend on what was in the caches before."""


def _left(check: Check, parts: Mapping[str, Judgement]) -> Check | None:
    """The check without the findings that appear in a scenario's part; None if nothing is left."""
    if check.verdict is Verdict.VALID:
        return None
    if check.comparisons and check.verdict is worst(one.verdict for one in check.comparisons):
        return _left_counters(check, parts)
    own = [one for part in parts.values() for one in part.checks if one.name == check.name]
    shown = {(finding.subject, finding.text) for one in own for finding in one.findings}
    subjects = {finding.subject for one in own for finding in one.findings if one.name not in _OF_SERVERS}
    left = tuple(one for one in check.findings if (one.subject, one.text) not in shown and one.subject not in subjects)
    if len(left) == len(check.findings):
        # No finding appears in a part. A check without findings appears there if a part's check is as bad.
        return None if not left and any(one.verdict in (check.verdict, Verdict.INVALID) for one in own) else check
    if not left:
        return None
    # The findings that are left out may be the only ones that made the check invalid.
    return replace(check, verdict=Verdict.UNKNOWN, summary=f"{left[0].subject}: {left[0].text}", findings=left)


_OF_SERVERS = ("settled",)
"""Checks whose findings are about servers: two findings about one server may be about different things."""


def _left_counters(check: Check, parts: Mapping[str, Judgement]) -> Check | None:
    left = tuple(one for one in check.comparisons if one.scenario not in parts)
    verdict = worst(one.verdict for one in left) if left else Verdict.VALID
    if verdict is Verdict.VALID:
        return None
    return Check(check.name, verdict, first_problem(left), left, advice=check.advice)
