"""The verdict line, exit code, result.json, JUnit and ``check`` show the same verdict, also with known faults."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import counted_run as counted
import pytest
from run_fixtures import DEPLOYMENT, HISTORY
from shrink_pairs import Ran, harness

from harness.checkers import judge
from harness.checkers.nixl_bytes import nixl_bytes
from harness.checkers.offload_bytes import offload_bytes
from harness.checkers.token_sources import token_sources
from harness.history import Ended, History, Outcome
from harness.reports import WHOLE_RUN, Row, make_report
from harness.reports.catalogue import tally
from harness.reports.screen.plain import plain_lines
from harness.verdict import Advice, Check, FaultSign, Judgement, KnownFault, Verdict

FAULT = KnownFault((FaultSign("failed_transfers"),), ("0.32.0",), ("cpu",), "counts two of three notifications as late")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run of the catalogue in which a known fault of the engine shows."""
    names = ("--workload", "several_choices", "--workload", "short_prompt", "--workload", "two_by_two")
    where = tmp_path_factory.mktemp("faulty")
    return harness("--engine", "sim", *names, "--plain", "--result-dir", where, "--junit", where / "junit.xml")


@pytest.mark.slow
def test_a_known_fault_is_shown_and_does_not_count(faulty: Ran, tmp_path: Path) -> None:
    assert faulty.code == 0, faulty.out + faulty.err
    assert faulty.directory is not None
    first, second, *_ = faulty.out.splitlines()
    assert first == "VALID: 3 workloads: 1 valid, 1 known fault, 1 skipped"
    assert second.startswith("  KNOWN FAULT failed_transfers: ")
    assert faulty.out.splitlines()[-1] == "3 workloads: 1 valid, 1 known fault, 1 skipped"
    assert faulty.result["verdict"] == "valid"
    assert [row["verdict"] for row in faulty.result["workloads"]] == ["valid", "known fault", "skipped"]
    again = harness("check", faulty.directory, "--plain", "--junit", tmp_path / "again.xml")
    assert (again.code, again.out) == (faulty.code, faulty.out)
    assert (tmp_path / "again.xml").read_text() == (faulty.directory.parent / "junit.xml").read_text()


@pytest.mark.slow
def test_junit_of_a_checked_catalogue_has_a_case_for_each_workload(faulty: Ran, tmp_path: Path) -> None:
    assert faulty.directory is not None
    harness("check", faulty.directory, "--junit", tmp_path / "again.xml")
    suite = ET.parse(tmp_path / "again.xml").getroot()[0]  # noqa: S314 - our own
    assert [case.get("name") for case in suite.iter("testcase")] == ["short_prompt", "several_choices", "two_by_two"]
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "2")


@pytest.mark.slow
def test_saving_a_check_does_not_change_the_verdict(faulty: Ran) -> None:
    assert faulty.directory is not None
    harness("check", faulty.directory, "--save")
    assert json.loads((faulty.directory / "result.json").read_text()) == faulty.result


def judged(name: str, verdict: Verdict) -> Judgement:
    return Judgement((Check(name, verdict, f"about {name}"),))


def row(check: str, verdict: Verdict, workload: str = "a", **fields: object) -> Row:
    return Row(workload, "f", "d", judged(check, verdict), deployment=DEPLOYMENT, **fields)  # type: ignore[arg-type] # as named


RIGHT = row("outputs", Verdict.VALID)
DOUBTFUL = row("client_health", Verdict.UNKNOWN, WHOLE_RUN)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([row("failed_transfers", Verdict.INVALID, known_fault=FAULT)], Verdict.VALID),
        ([row("failed_transfers", Verdict.INVALID)], Verdict.INVALID),
        ([row("outputs", Verdict.INVALID, known_fault=FAULT)], Verdict.INVALID),
        ([Row("a", "f", "d", skipped="it needs more")], Verdict.UNKNOWN),
        ([RIGHT, DOUBTFUL], Verdict.UNKNOWN),
    ],
)
def test_a_catalogues_reports_have_the_verdict_of_its_table(rows: list[Row], verdict: Verdict) -> None:
    excused = row("failed_transfers", Verdict.INVALID, "z", known_fault=FAULT)
    rows = [excused, *rows]
    if verdict is Verdict.VALID:
        rows.append(row("outputs", Verdict.VALID, "y"))
    report = make_report(DEPLOYMENT, HISTORY, judged("failed_transfers", Verdict.INVALID), rows=rows)
    assert report.verdict is verdict
    assert report.result["verdict"] == verdict.value
    assert next(plain_lines(report.overview)).startswith(f"{verdict.upper()}: ")
    suite = ET.fromstring(report.junit)[0]  # noqa: S314 - our own
    assert (suite.get("failures") != "0") == (verdict is Verdict.INVALID)


def test_the_whole_run_is_not_counted_as_a_workload() -> None:
    assert tally([RIGHT, DOUBTFUL]) == "1 workload: 1 valid; the run as a whole is unknown"


def unserved() -> History:
    """The counted run, in which nothing was served and nothing was counted."""
    entries = counted.history(counted.readings(counted.ZERO, counted.ZERO)).entries
    return History(
        tuple(Ended(e.at, e.request_id, Outcome.FAIL, "400: no", 400) if isinstance(e, Ended) else e for e in entries)
    )


def test_no_bytes_moved_is_unknown_if_nothing_was_served() -> None:
    for checker in (nixl_bytes, offload_bytes):
        check = checker(counted.DEPLOYMENT, unserved())
        assert check.verdict is Verdict.UNKNOWN
        assert check.summary == "no request was served, so there was nothing to move"


def test_counters_that_did_not_grow_are_no_evidence_if_nothing_was_served() -> None:
    check = token_sources(counted.DEPLOYMENT, unserved())
    assert check.verdict is Verdict.UNKNOWN
    assert check.summary == "no request was served, so there were no prompt tokens to account for"
    judged = {one.name: one for one in judge(counted.DEPLOYMENT, unserved()).checks}
    for name in ("token_sources", "nixl_bytes", "offload_bytes"):
        assert judged[name].advice == Advice("no request completed", "see completion")


@pytest.mark.slow
def test_a_known_fault_has_no_advice(faulty: Ran) -> None:
    assert "KNOWN FAULT" in faulty.out
    assert "likely cause" not in faulty.out
    assert not any("likely cause" in reason for row in faulty.result["workloads"] for reason in row["reasons"])
