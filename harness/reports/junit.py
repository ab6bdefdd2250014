"""Checks as JUnit XML, one test case for each check of each scenario: what CI systems draw.

An invalid check is a failure; an unknown one is an error, so that no CI system counts it as passed. A check is
laid to the scenarios that its evidence names; if any of its evidence names none, to all of them.
"""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from harness.history import History, RunEnded, RunStarted
from harness.reports.text import clean
from harness.verdict import Check, Comparison, Judgement, Verdict

MOST_EVIDENCE = 50
"""Lines of evidence in one test case."""


def junit_xml(history: History, judgement: Judgement, *, suite: str = "harness") -> str:
    """The whole document, with its XML declaration."""
    scenarios = _scenarios(history)
    root = ET.Element("testsuites")
    element = ET.SubElement(root, "testsuite", name=suite)
    places = {op.request.request_id: op.sent.scenario for op in history.operations() if op.request.of_load}
    for scenario in scenarios:
        for check in judgement.checks or (_NOTHING,):
            _case(element, scenario, check, blamed=scenario in (_blamed(check, places) or scenarios))
    count_cases(element)
    element.set("time", f"{max((entry.at for entry in history.of(RunEnded)), default=0.0):.3f}")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


_NOTHING = Check("any", Verdict.UNKNOWN, "nothing was checked")


def _scenarios(history: History) -> tuple[str, ...]:
    started = next(history.of(RunStarted), None)
    return (started and started.scenarios) or ("run",)


def _case(suite: ET.Element, scenario: str, check: Check, *, blamed: bool) -> None:
    case = ET.SubElement(suite, "testcase", classname=clean(scenario), name=clean(check.name))
    if check.verdict is Verdict.VALID or not blamed:
        return
    tag = "failure" if check.verdict is Verdict.INVALID else "error"
    trouble = ET.SubElement(
        case, tag, message=f"{check.verdict}: {clean(check.summary, None)}", type=check.verdict.value
    )
    trouble.text = "\n".join(finding_lines(check, scenario))


def _blamed(check: Check, places: dict[str, str]) -> set[str] | None:
    """The scenarios at fault; None where the evidence does not say."""
    named = [places.get(finding.request or finding.subject) for finding in check.findings]
    named += [part.scenario for part in _wrong(check)]
    known = {name for name in named if name is not None}
    return known if known and None not in named else None


def _wrong(check: Check) -> list[Comparison]:
    return [part for part in check.comparisons if part.verdict is not Verdict.VALID]


def finding_lines(check: Check, scenario: str) -> Iterator[str]:
    """What is wrong in a scenario by a check, line by line."""
    lines = [
        f"{part.phase} {part.server} {part.counter}: expected {part.expected}, observed {part.observed} "
        f"{part.why_unknown}".rstrip()
        for part in _wrong(check)
        if part.scenario == scenario
    ]
    lines += [f"{finding.subject}: {finding.text}" for finding in check.findings]
    yield from (clean(line, None) for line in lines[:MOST_EVIDENCE])
    if len(lines) > MOST_EVIDENCE:
        yield f"and {len(lines) - MOST_EVIDENCE} more"
    if check.advice:
        yield clean(str(check.advice), None)


def count_cases(suite: ET.Element) -> None:
    """Give a suite the attributes that say how many of its cases came out how."""
    paths = {"failures": "testcase/failure", "errors": "testcase/error", "skipped": "testcase/skipped"}
    for attribute, path in {"tests": "testcase", **paths}.items():
        suite.set(attribute, str(len(suite.findall(path))))
