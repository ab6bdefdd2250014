"""The frame of a JUnit document: suites with their numbers, properties and times, and cases with their trouble.

Only elements and attributes that GitHub's usual actions, GitLab, Jenkins and Buildkite all read. Cases have no
``file``: these systems link it to a file of the repository that was built, and a check is not in one. The host's name
is left out, since these files are shown to many people.
"""

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from harness.redact import redact_text
from harness.reports.identity import PROJECT, RunIdentity
from harness.reports.text import clean
from harness.verdict import Verdict

_COUNTED = {
    "tests": "testcase",
    "failures": "testcase/failure",
    "errors": "testcase/error",
    "skipped": "testcase/skipped",
}


def new_suite(identity: RunIdentity | None, name: str = "") -> ET.Element:
    """A suite without cases. ``name``: of the deployment, where there are several. None: there was no run."""
    label = identity.label if identity else ""
    suite = ET.Element("testsuite", name=" ".join(filter(None, (PROJECT, label, clean(name, None)))))
    if identity is not None:
        suite.set("timestamp", f"{identity.started:%Y-%m-%dT%H:%M:%S}")
        properties = ET.SubElement(suite, "properties")
        for key, value in identity.texts.items():
            ET.SubElement(properties, "property", name=key, value=value)
    return suite


def new_case(
    suite: ET.Element, identity: RunIdentity | None, group: str, name: str, seconds: float = 0.0
) -> ET.Element:
    """A case that passed. Jenkins shows the part of the class before its last full stop as the package."""
    package = (identity.label if identity else "") or PROJECT
    names = {"classname": shown(f"{package}.{group}"), "name": shown(name)}
    return ET.SubElement(suite, "testcase", names, time=f"{seconds:.3f}")


def add_trouble(case: ET.Element, verdict: Verdict, message: str, lines: Iterable[str], kind: str = "") -> None:
    """Make a case a failure if it is invalid, an error if it is unknown: no CI system counts either as passed."""
    tag = "failure" if verdict is Verdict.INVALID else "error"
    trouble = ET.SubElement(case, tag, message=shown(message), type=kind or verdict.value)
    trouble.text = "\n".join(map(shown, lines))


def how_to_repeat(identity: RunIdentity | None) -> list[str]:
    """Lines that say how to see this again; none if there was no run."""
    if identity is None:
        return []
    again = [f"to repeat the run: {identity.command}"]
    return [*again, f"to judge it again: python -m harness check {identity.directory}"] if identity.directory else again


def document(suites: Iterable[ET.Element]) -> str:
    """The document, with its XML declaration. The numbers of cases are counted here, and the suites' times added up."""
    root = ET.Element("testsuites", name=PROJECT)
    for suite in suites:
        for attribute, path in _COUNTED.items():
            suite.set(attribute, str(len(suite.findall(path))))
        root.append(suite)
    for attribute in _COUNTED:
        root.set(attribute, str(sum(int(suite.get(attribute, "0")) for suite in root)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in root):.3f}")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def shown(text: str) -> str:
    """One line without credentials and without characters that XML forbids."""
    return clean(redact_text(text), None)
