"""What servers say is printed in a CI system's log, and is never taken for one of the system's commands."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_fixtures import DEPLOYMENT, HISTORY, INVALID

from harness.cli.ci_log import CiLog
from harness.cli.output import print_command, unfailing_output
from harness.reports import LoadSettings, make_report, print_report
from harness.reports.ci import announce
from harness.verdict import Check, Finding, Judgement, Verdict

GITHUB, BUILDKITE = {"GITHUB_ACTIONS": "true"}, {"BUILDKITE": "true"}
HOSTILE = "::stop-commands::x ##[add-mask]a"


def github_commands(log: str) -> list[str]:
    """The lines that GitHub's runner takes for commands, whatever their names (ActionCommand.cs of actions/runner)."""
    return [line for line in re.split(r"\r\n|\r|\n", log) if line.lstrip().startswith("::") or "##[" in line]


def buildkite_sections(log: str) -> list[str]:
    """The lines at which Buildkite begins a section of the log."""
    return [line for line in re.split(r"\r\n|\r|\n", log) if line.startswith(("---", "+++", "~~~", "^^^"))]


PIECES = st.text(st.sampled_from(":#[] \t\r\nx-+~^\u00a0\u2028"), max_size=8)


@given(st.lists(PIECES, max_size=12))
def test_no_line_is_a_command_however_it_is_written(pieces: list[str]) -> None:
    for environment in (GITHUB, BUILDKITE, GITHUB | BUILDKITE):
        log = CiLog(environment)
        shown = "".join(map(log.harmless, pieces))
        if "GITHUB_ACTIONS" in environment:
            assert github_commands(shown) == []
        if "BUILDKITE" in environment:
            assert buildkite_sections(shown) == []
        assert shown.replace(" ", "") == "".join(pieces).replace(" ", ""), "nothing is lost"


@given(st.lists(PIECES, max_size=12))
def test_elsewhere_nothing_is_changed(pieces: list[str]) -> None:
    for environment in ({}, {"GITHUB_ACTIONS": "false", "BUILDKITE": ""}):
        log = CiLog(environment)
        assert [log.harmless(piece) for piece in pieces] == pieces


@pytest.mark.parametrize("text", ["std::vector a::b", "# [x] ## x", "a --- b", "{'a': 1}", "--plain"])
def test_what_is_no_command_stays_as_it_is(text: str) -> None:
    assert CiLog(GITHUB | BUILDKITE).harmless(text) == text


def test_a_report_s_texts_are_no_commands_and_its_annotations_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    finding = Finding(subject=HOSTILE, text=HOSTILE)
    judged = Judgement((*INVALID.checks, Check("outputs", Verdict.INVALID, HOSTILE, findings=(finding,))))
    with unfailing_output():
        report = make_report(DEPLOYMENT, HISTORY, judged, Path("/runs/one"), LoadSettings(2, label=HOSTILE))
        print_report(report, plain=True)
        print(f"error: it said:\n{HOSTILE}", file=sys.stderr)
        announce(report, GITHUB, print_command)
    assert "add-mask]a" in out.getvalue()
    assert github_commands(out.getvalue()) == []
    commands = github_commands(err.getvalue())
    assert len(commands) >= 3
    assert all(line.startswith(("::error title=", "::warning title=")) for line in commands)


def test_the_command_line_guards_its_own_streams(tmp_path: Path) -> None:
    """An error that repeats the user's text over several lines."""
    words = ["check", str(tmp_path / "a\n::error::b ##[error]c")]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **GITHUB},
    )
    assert done.returncode == 2
    assert "error]c" in done.stderr
    assert github_commands(done.stdout + done.stderr) == []
