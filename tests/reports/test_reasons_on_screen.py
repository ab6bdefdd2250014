"""Reasons are shown in full, and only once."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from run_fixtures import DEPLOYMENT, HISTORY, compared

from harness.clock import MonotonicClock
from harness.reports import PlainProgress, Row, make_report, print_catalogue, print_report
from harness.reports.assertion import explain
from harness.reports.files.catalogue_junit import catalogue_junit
from harness.reports.screen.terminal import print_overview
from harness.verdict import Check, Finding, Judgement, Verdict

LONG = "the server sent " + "one more word, " * 60 + "and (penalties of the model's own: repetition_penalty 1.05)"


def plain(*checks: Check) -> str:
    stream = io.StringIO()
    print_report(make_report(DEPLOYMENT, HISTORY, Judgement(checks)), plain=True, stream=stream)
    return stream.getvalue()


def terminal(*checks: Check, width: int = 80) -> str:
    """The text on a terminal without line breaks."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, record=True, highlight=False)
    print_overview(make_report(DEPLOYMENT, HISTORY, Judgement(checks)).overview, console)
    return "".join(console.export_text().split())


UNSURE = Check(
    "token_sources",
    Verdict.UNKNOWN,
    f"local_compute of decode-0 in load is unknown: {LONG}",
    (compared("decode-0", "local_compute", None, 1.0, LONG), compared("decode-0", "prompt_tokens", None, 1.0, LONG)),
)
ALSO = Check(
    "nixl_bytes",
    Verdict.UNKNOWN,
    f"nixl_bytes of decode-0 in load is unknown: {LONG}",
    (compared("decode-0", "nixl_bytes", None, 1.0, LONG),),
)


def test_a_reason_is_never_clipped() -> None:
    finding = Check("outputs", Verdict.INVALID, "1 differs", findings=(Finding("load-0", LONG),))
    for check in (UNSURE, finding):
        assert LONG in plain(check)
        assert LONG.replace(" ", "") in terminal(check)
        assert LONG in explain("case", Judgement((check,)))
        row = Row("case", "family", "multi", Judgement((check,)))
        assert LONG in catalogue_junit([row])
    stream = io.StringIO()
    print_catalogue([Row("case", "family", "multi", Judgement((UNSURE,)))], stream=stream)
    assert LONG in stream.getvalue()


def test_one_reason_for_many_counters_is_shown_once() -> None:
    shown = plain(UNSURE, ALSO)
    assert shown.count(LONG) == 1
    assert "nixl_bytes of decode-0 in load is unknown: for the same reason as token_sources" in shown
    assert shown.count("UNKNOWN decode-0") == 3, "each counter is still shown as unknown"
    assert terminal(UNSURE, ALSO).count("repetition_penalty") == 1


def test_a_finding_in_the_summary_is_not_repeated() -> None:
    findings = (
        Finding("load-1", "500: engine died"),
        Finding("load-2", "500: engine died"),
        Finding("load-3", "broke off"),
    )
    check = Check("completion", Verdict.INVALID, "3 did not, the first being load-1: 500: engine died", (), findings)
    shown = plain(check)
    assert shown.count("engine died") == 1
    assert "    load-2: the same\n" in shown
    assert "    load-3: broke off\n" in shown
    assert explain("case", Judgement((check,))).count("load-1") == 1


def test_findings_with_the_same_text_are_one_line() -> None:
    findings = tuple(Finding(f"load-{n}", "answered without KV") for n in range(5))
    shown = plain(Check("outputs", Verdict.INVALID, "5 differ", findings=findings))
    assert "    load-0, load-1, load-2 and 2 more: answered without KV\n" in shown
    assert shown.count("answered without KV") == 1


def test_more_checks_than_a_row_lists_are_named() -> None:
    checks = tuple(Check(f"check_{n}", Verdict.UNKNOWN, "too little") for n in range(5))
    reasons = Row("case", "family", "multi", Judgement(checks)).reasons
    assert reasons[-1] == "and unknown check_3, unknown check_4"


def test_progress_is_not_clipped() -> None:
    stream = io.StringIO()
    PlainProgress(stream, MonotonicClock()).note(LONG)
    assert LONG in stream.getvalue()


@pytest.mark.parametrize("flags", [pytest.param(["--plain"], marks=pytest.mark.slow), []])
def test_serve_can_show_plain_progress_on_a_terminal(tmp_path: Path, flags: list[str]) -> None:
    """The command ``serve`` prints only the facts to stdout, and no escape sequences to stderr with --plain."""
    terminal_side, process_side = pty.openpty()
    command = [sys.executable, "-m", "harness", "serve", "--engine", "sim", "--num-warmups", "1", *flags]
    process = subprocess.Popen(
        [*command, "--result-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=process_side,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(process_side)
    assert process.stdout is not None
    facts = process.stdout.readline()
    process.terminate()
    process.communicate()
    shown = os.read(terminal_side, 1 << 16)
    os.close(terminal_side)
    assert facts.startswith('{"base_url": "http://')
    assert (b"\x1b[" in shown) == (not flags)
    assert process.returncode == 0
