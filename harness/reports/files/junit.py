"""Checks as JUnit XML for CI systems: one test case per check and scenario.

An invalid check is a failure. An unknown check is an error, so that no CI system counts it as passed. Both count for
the scenarios of their wrong comparisons and findings, or for all scenarios if one of these belongs to no scenario.
"""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from harness.history import History, RunEnded, RunStarted
from harness.reports.counters import comparison_line
from harness.reports.faults import fault_lines
from harness.reports.text import clean
from harness.verdict import Check, Comparison, Judgement, Verdict

MOST_EVIDENCE = 50
"""Lines of evidence in one test case."""


def junit_xml(history: History, judgement: Judgement, *, suite: str = "harness") -> str:
    """The whole document, with its XML declaration."""
    scenarios = _scenarios(history)
    element = ET.Element("testsuite", name=suite)
    scenario_of = {op.request.request_id: op.sent.scenario for op in history.operations() if op.request.of_load}
    for scenario in scenarios:
        for check in judgement.checks or (_NOTHING,):
            case = _case(element, scenario, check, failed=scenario in (_failed_in(check, scenario_of) or scenarios))
            if check.name == "faults":
                ET.SubElement(case, "system-out").text = "\n".join(fault_lines(history))
    return document(element, max((entry.at for entry in history.of(RunEnded)), default=0.0))


_NOTHING = Check("any", Verdict.UNKNOWN, "nothing was checked")


def _scenarios(history: History) -> tuple[str, ...]:
    started = next(history.of(RunStarted), None)
    return (started and started.scenarios) or ("run",)


def _case(suite: ET.Element, scenario: str, check: Check, *, failed: bool) -> ET.Element:
    case = ET.SubElement(suite, "testcase", classname=clean(scenario), name=clean(check.name))
    if check.verdict is Verdict.VALID or not failed:
        return case
    tag = "failure" if check.verdict is Verdict.INVALID else "error"
    trouble = ET.SubElement(
        case, tag, message=f"{check.verdict}: {clean(check.summary, None)}", type=check.verdict.value
    )
    trouble.text = "\n".join(finding_lines(check, scenario))
    return case


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
    lines += [f"{finding.subject}: {finding.text}" for finding in check.findings]
    yield from (clean(line, None) for line in lines[:MOST_EVIDENCE])
    if len(lines) > MOST_EVIDENCE:
        yield f"and {len(lines) - MOST_EVIDENCE} more"
    if check.advice:
        yield clean(str(check.advice), None)


def document(suite: ET.Element, seconds: float) -> str:
    """The document with one suite, whose attributes for times and numbers of cases are set here."""
    paths = {"failures": "testcase/failure", "errors": "testcase/error", "skipped": "testcase/skipped"}
    for attribute, path in {"tests": "testcase", **paths}.items():
        suite.set(attribute, str(len(suite.findall(path))))
    suite.set("time", f"{seconds:.3f}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
