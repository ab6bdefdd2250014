"""Checks as JUnit XML for CI systems: one test case per check and scenario.

An invalid check is a failure. An unknown check is an error, so that no CI system counts it as passed. Both count for
the scenarios of their wrong comparisons and findings, or for all scenarios if one of these belongs to no scenario.
A check takes no time of its own, so that its case has 0 s; the suite has the run's time.
"""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from harness.history import History, RunStarted
from harness.reports.counters import comparison_line
from harness.reports.faults import fault_lines
from harness.reports.files.junit_document import add_trouble, document, how_to_repeat, new_case, new_suite
from harness.reports.finding_line import finding_line
from harness.reports.identity import RunIdentity
from harness.verdict import Check, Comparison, Judgement, Verdict

MOST_EVIDENCE = 50
"""Lines of evidence in one test case."""


def junit_xml(history: History, judgement: Judgement, identity: RunIdentity | None = None) -> str:
    """The whole document, with its XML declaration."""
    scenarios = _scenarios(history)
    suite = new_suite(identity)
    suite.set("time", f"{0.0 if identity is None else identity.seconds:.3f}")
    scenario_of = {op.request.request_id: op.sent.scenario for op in history.operations() if op.request.of_load}
    for scenario in scenarios:
        for check in judgement.checks or (_NOTHING,):
            case = new_case(suite, identity, scenario, check.name)
            if check.verdict is not Verdict.VALID and scenario in (_failed_in(check, scenario_of) or scenarios):
                lines = [*finding_lines(check, scenario), *how_to_repeat(identity)]
                add_trouble(case, check.verdict, f"{check.verdict}: {check.summary}", lines)
            if check.name == "faults":
                ET.SubElement(case, "system-out").text = "\n".join(fault_lines(history))
    return document([suite])


_NOTHING = Check("any", Verdict.UNKNOWN, "nothing was checked")


def _scenarios(history: History) -> tuple[str, ...]:
    started = next(history.of(RunStarted), None)
    return (started and started.scenarios) or ("run",)


def _failed_in(check: Check, scenario_of: dict[str, str]) -> set[str] | None:
    """The scenarios of the check's evidence; None if a part of the evidence belongs to no scenario."""
    named = [finding.request and scenario_of.get(finding.request) for finding in check.findings]
    named += [part.scenario for part in _wrong(check)]
    known = {name for name in named if name is not None}
    return known if known and None not in named else None


def _wrong(check: Check) -> list[Comparison]:
    return [part for part in check.comparisons if part.verdict is not Verdict.VALID]


def finding_lines(check: Check, scenario: str) -> Iterator[str]:
    """The check's wrong comparisons in a scenario, its findings and its advice, line by line."""
    lines = [comparison_line(part) for part in _wrong(check) if part.scenario == scenario]
    lines += map(finding_line, check.findings)
    yield from lines[:MOST_EVIDENCE]
    if len(lines) > MOST_EVIDENCE:
        yield f"and {len(lines) - MOST_EVIDENCE} more"
    if check.advice:
        yield str(check.advice)
