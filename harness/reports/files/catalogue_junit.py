"""The catalogue's table as JUnit XML: one test case per workload and deployment, one suite per run.

An invalid workload is a failure. An unknown workload is an error, so that no CI system counts it as passed. A workload
that could not run is skipped; so is a workload whose known fault is excused, like an expected failure in pytest.
"""

from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree as ET

from harness.reports.catalogue import Row
from harness.reports.files.junit import finding_lines
from harness.reports.files.junit_document import add_trouble, document, how_to_repeat, new_case, new_suite, shown
from harness.reports.identity import RunIdentity
from harness.verdict import Verdict


def catalogue_junit(rows: Sequence[Row], identity: RunIdentity | None = None) -> str:
    """The whole document for one run, with its XML declaration."""
    return catalogues_junit([(rows, identity)])


def catalogues_junit(runs: Iterable[tuple[Sequence[Row], RunIdentity | None]]) -> str:
    """The whole document for runs on several deployments: of each, its rows and its identity (None: no run began)."""
    return document(_suite(rows, identity) for rows, identity in runs if rows)


def _suite(rows: Sequence[Row], identity: RunIdentity | None) -> ET.Element:
    suite = new_suite(identity, ", ".join(dict.fromkeys(row.deployment_name for row in rows)))
    suite.set("time", f"{sum(row.seconds for row in rows):.3f}")
    for row in rows:
        _add_case(suite, row, identity)
    return suite


def _add_case(suite: ET.Element, row: Row, identity: RunIdentity | None) -> None:
    case = new_case(suite, identity, f"{row.deployment_name}.{row.family}", row.workload, row.seconds)
    if row.judgement is None or row.excused:
        ET.SubElement(case, "skipped", message=shown("; ".join(row.reasons)))
    elif row.verdict is not None and row.verdict is not Verdict.VALID:
        lines = [*_evidence(row), *how_to_repeat(identity)]
        add_trouble(case, row.verdict, "; ".join(row.reasons), lines, row.word)
    if row.judgement is not None:
        ET.SubElement(case, "system-out").text = f"{row.word}: {row.compared}"


def _evidence(row: Row) -> Iterator[str]:
    for check in row.judgement.checks if row.judgement else ():
        if check.verdict is not Verdict.VALID:
            yield f"{check.verdict} {check.name}: {check.summary}"
            yield from finding_lines(check, row.workload)
