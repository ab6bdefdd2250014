"""JUnit files keep a strict schema of our own; failing, unknown and skipped cases appear as such."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from run_fixtures import DEPLOYMENT, HISTORY, INVALID, STARTED, UNKNOWN, VALID, entries

from harness.history import History
from harness.reports import LoadSettings, Report, Row, make_report
from harness.reports.files.catalogue_junit import catalogues_junit
from harness.verdict import Check, FaultSign, Finding, Judgement, KnownFault, Verdict

SCHEMA = Path(__file__).parent.parent / "data" / "junit.xsd"
HOSTILE = "a]]></failure>&amp;<x y='\"'\x00\x08\x0b\x1b[31m\r\n\t\ud800\ufffe\u202e::error::\x7f\x9b end"


@cache
def schema() -> xmlschema.XMLSchema11:
    return xmlschema.XMLSchema11(SCHEMA)


def report(judgement: Judgement, *, label: str = "", rows: tuple[Row, ...] = (), history: History = HISTORY) -> Report:
    settings = LoadSettings(2, label=label)
    return make_report(DEPLOYMENT, history, judgement, Path("/runs/one"), settings, rows=rows)


def tree(text: str) -> ET.Element:
    """The document, which keeps the schema."""
    schema().validate(text)
    return ET.fromstring(text)  # noqa: S314 - our own


def row(workload: str, verdict: Verdict, **fields: object) -> Row:
    judged = Judgement((Check("outputs", verdict, "of outputs"),))
    return Row(workload, "family", "multi", judged, seconds=1.5, deployment=DEPLOYMENT, **fields)  # type: ignore[arg-type] # as named


KNOWN = KnownFault((FaultSign("outputs"),), ("0.32.0",), ("cpu",), "loses the tail")
ROWS = (
    row("right", Verdict.VALID),
    row("wrong", Verdict.INVALID),
    row("unsure", Verdict.UNKNOWN),
    row("known", Verdict.INVALID, known_fault=KNOWN),
    Row("elsewhere", "family", "multi", skipped="it needs two decode servers"),
)


@pytest.mark.parametrize("judgement", [VALID, INVALID, UNKNOWN, Judgement(())])
@pytest.mark.parametrize("label", ["", "nightly"])
def test_a_loads_file_keeps_the_schema(judgement: Judgement, label: str) -> None:
    tree(report(judgement, label=label).junit)


def test_a_catalogues_cases_appear_as_what_they_are() -> None:
    root = tree(report(INVALID, rows=ROWS).junit)
    tags = {
        case.get("name"): [child.tag for child in case if child.tag != "system-out"] for case in root.iter("testcase")
    }
    assert tags == {
        "right": [],
        "wrong": ["failure"],
        "unsure": ["error"],
        "known": ["skipped"],
        "elsewhere": ["skipped"],
    }
    for element in (root, root[0]):
        assert [element.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["5", "1", "1", "2"]
    assert root[0].get("time") == "6.000"


def test_several_deployments_are_several_suites_and_one_of_them_may_not_have_begun() -> None:
    one = report(INVALID, rows=ROWS).identity
    failed = Row("cold", "hits", "2p2d", Judgement((Check("deployment", Verdict.UNKNOWN, "it did not start"),)))
    root = tree(catalogues_junit([(ROWS, one), ((failed,), None), ((), None)]))
    assert [suite.get("name") for suite in root] == ["pd-harness multi", "pd-harness 2p2d"]
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["6", "1", "2", "2"]


def test_the_properties_say_what_was_run_without_credentials() -> None:
    written = report(VALID, label="nightly").junit
    properties = {one.get("name"): one.get("value") for one in tree(written).iter("property")}
    assert properties["seed"] == "7"
    assert properties["verdict"] == "valid"
    assert (properties["model"], properties["engine_version"]) == ("canary", "0.32.0")
    assert (properties["harness_version"], properties["commit"]) == ("0.1.0", "0123abc")
    assert properties["connector"] == "nixl+offloading"
    assert properties["directory"] == "/runs/one"
    assert str(properties["command"]).startswith("python -m harness --concurrency 32 --header ")
    assert "sesame" not in written
    suite = tree(written)[0]
    assert (suite.get("name"), suite.get("timestamp"), suite.get("time")) == (
        "pd-harness nightly",
        "2026-01-02T03:04:05",
        "4.000",
    )
    assert {case.get("classname") for case in suite.iter("testcase")} == {"nightly.random_load"}


def test_a_finding_has_its_places_and_the_way_to_see_it_again() -> None:
    found = Finding("load-0", "wrong", request="load-0", server="decode-0", token=3, block=2, owner="load-1")
    text = tree(report(Judgement((Check("outputs", Verdict.INVALID, "1 is wrong", (), (found,)),))).junit)
    lines = text.findtext(".//failure", "").splitlines()
    assert lines[0] == ("load-0: wrong [server decode-0, first wrong token 3, first wrong KV block 2, KV of load-1]")
    assert lines[1].startswith("to repeat the run: python -m harness --concurrency 32 ")
    assert lines[2] == "to judge it again: python -m harness check /runs/one"


def test_hostile_texts_are_clean_xml() -> None:
    finding = Finding(HOSTILE, HOSTILE, request=HOSTILE, server=HOSTILE, owner=HOSTILE)
    judgement = Judgement((Check(HOSTILE, Verdict.INVALID, HOSTILE, (), (finding,)),))
    history = History((replace(STARTED, scenarios=(HOSTILE,), argv=("--label", HOSTILE)), *entries()[1:]))
    # All four are bad names, and none may end an element or hide a part of the document.
    for written in (
        report(judgement, label=HOSTILE, history=history).junit,
        report(judgement, label=HOSTILE, rows=(Row(HOSTILE, HOSTILE, HOSTILE, judgement),)).junit,
        report(judgement, rows=(Row("w", "f", "d", skipped=HOSTILE),)).junit,
    ):
        root = tree(written)
        assert len(root.findall("testsuite/testcase")) == 1
        assert not [one for one in written if ord(one) < 32 and one != "\n"]


def test_a_credential_in_a_finding_is_not_shown() -> None:
    text = "GET http://user:sesame@p/metrics failed; Authorization: Bearer sesame"
    finding = Finding("decode-0", text)
    assert "sesame" not in report(Judgement((Check("c", Verdict.INVALID, text, (), (finding,)),))).junit


BROKEN = {
    "a count that is not the number of elements": ('failures="1"', 'failures="0"'),
    "a total that is not the sum": (
        '<testsuites name="pd-harness" tests="5"',
        '<testsuites name="pd-harness" tests="4"',
    ),
    "a case that both failed and was skipped": ("<failure", '<skipped message="x" /><failure'),
    "a case twice": ('name="wrong"', 'name="right"'),
    "a case without a name": ('name="wrong" ', ""),
    "a negative time": ('time="1.500"', 'time="-1.500"'),
    "a time that is no number": ('time="1.500"', 'time="1,5"'),
    "a calendar time with a zone": ("T03:04:05", "T03:04:05Z"),
    "a word for the trouble that nobody reads": ("<error", "<unknown"),
    "a trouble without its kind": ('type="unknown"', ""),
    "a property twice": ('<property name="seed"', '<property name="run"'),
    "an element that is not known": ("<properties>", "<hostname /><properties>"),
    "an attribute that is not known": ('classname="', 'file="x" classname="'),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_schema_refuses(what: str) -> None:
    written, (old, new) = report(INVALID, rows=ROWS).junit, BROKEN[what]
    broken = written.replace(old, new)
    if "<unknown" in broken:
        broken = broken.replace("</error>", "</unknown>")
    assert broken != written
    ET.fromstring(broken)  # noqa: S314 - our own; it is XML all the same
    assert schema().is_valid(written)
    assert not schema().is_valid(broken)
