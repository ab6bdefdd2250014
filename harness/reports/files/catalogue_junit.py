"""The catalogue's table as JUnit XML: one test case per workload and deployment.

An invalid workload is a failure. An unknown workload is an error, so that no CI system counts it as passed. A workload
that could not run is skipped; so is a workload whose known fault is excused, like an expected failure in pytest.
"""

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree as ET

from harness.reports.catalogue import Row
from harness.reports.files.junit import document, finding_lines
from harness.reports.text import clean
from harness.verdict import Verdict


def catalogue_junit(rows: Iterable[Row], *, suite: str = "catalogue") -> str:
    """The whole document, with its XML declaration."""
    rows = tuple(rows)
    element = ET.Element("testsuite", name=suite)
    for row in rows:
        _case(element, row)
    return document(element, sum(row.seconds for row in rows))


def _case(suite: ET.Element, row: Row) -> None:
    names = {"classname": clean(f"{row.deployment_name}.{row.family}"), "name": clean(row.workload)}
    case = ET.SubElement(suite, "testcase", names, time=f"{row.seconds:.3f}")
    if row.judgement is None:
        ET.SubElement(case, "skipped", message=clean(row.skipped, None))
    elif row.excused:
        ET.SubElement(case, "skipped", message="; ".join(row.reasons))
    elif row.verdict is not Verdict.VALID:
        tag = "failure" if row.verdict is Verdict.INVALID else "error"
        trouble = ET.SubElement(case, tag, message="; ".join(row.reasons), type=row.word)
        trouble.text = "\n".join(_evidence(row))
    if row.judgement is not None:
        ET.SubElement(case, "system-out").text = f"{row.word}: {row.compared}"


def _evidence(row: Row) -> Iterator[str]:
    for check in row.judgement.checks if row.judgement else ():
        if check.verdict is not Verdict.VALID:
            yield clean(f"{check.verdict} {check.name}: {check.summary}", None)
            yield from finding_lines(check, row.workload)
