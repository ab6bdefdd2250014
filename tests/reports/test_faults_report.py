"""Every form of report says what each fault did, what was observed of it, and when it was over."""

from dataclasses import replace
from xml.etree import ElementTree as ET

from run_fixtures import DEPLOYMENT, VALID, entries

from harness.history import FaultBegan, FaultHealed, FaultPlanned, FaultProved, History
from harness.reports import make_report
from harness.verdict import Check, Verdict

PAUSE = (
    FaultPlanned(0.5, "pause-1", "pause", "decode-0", "stop decode-0 with SIGSTOP", (), "random_load", "load"),
    FaultBegan(0.6, "pause-1"),
    FaultProved(0.7, "pause-1", "1 process is stopped (state T)"),
    FaultHealed(0.9, "pause-1", True, "1 process goes on"),  # noqa: FBT003 - the entry's fields in their order
)
LATE = FaultPlanned(0.5, "kill-1", "kill", "prefill-0", "kill prefill-0 with SIGKILL", (), "random_load", "load")
HISTORY = History((*entries()[:1], *PAUSE, LATE, *entries()[1:]))
JUDGED = replace(VALID, checks=(Check("faults", Verdict.UNKNOWN, "kill-1: the load ended"), *VALID.checks))


def test_result_json_has_each_fault() -> None:
    pause, kill = make_report(DEPLOYMENT, HISTORY, JUDGED).result["faults"]
    assert pause == {
        "name": "pause-1",
        "kind": "pause",
        "target": "decode-0",
        "what": "stop decode-0 with SIGSTOP",
        "from": 0.6,
        "to": 0.9,
        "evidence": "1 process is stopped (state T)",
        "healed": True,
        "healing": "1 process goes on",
        # load-0 was sent at 1.0 and completed at 1.5.
        "recovered_after": 0.6,
    }
    assert (kill["from"], kill["evidence"], kill["healed"], kill["recovered_after"]) == (None, None, False, None)


def test_the_plain_report_has_a_line_for_each_fault() -> None:
    lines = str(make_report(DEPLOYMENT, HISTORY, JUDGED)).splitlines()
    start = lines.index("faults:")
    assert "1 process is stopped (state T); undone after 0.3 s; served again 0.6 s later" in lines[start + 1]
    assert "not begun before the load ended" in lines[start + 2]


def test_junit_has_them_beside_the_check_of_faults() -> None:
    case = ET.fromstring(make_report(DEPLOYMENT, HISTORY, JUDGED).junit).find(  # noqa: S314 - our own
        ".//testcase[@name='faults']"
    )
    assert case is not None
    text = case.findtext("system-out", "")
    assert "pause-1: stop decode-0 with SIGSTOP" in text
    assert case.find("error") is not None


def test_a_run_without_faults_has_no_such_section() -> None:
    report = make_report(DEPLOYMENT, History(entries()), VALID)
    assert report.result["faults"] == []
    assert "faults:" not in str(report).splitlines()
