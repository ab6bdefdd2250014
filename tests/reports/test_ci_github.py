"""Annotations and the step summary of GitHub Actions: what is shown, how it is escaped, and how much of it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from run_fixtures import DEPLOYMENT, HISTORY, INVALID, STARTED, UNKNOWN, VALID, entries

from harness.history import History
from harness.reports import LoadSettings, Report, Row, make_report
from harness.reports.ci import announce, announce_rows
from harness.reports.ci.announcement import Announcement, Level
from harness.reports.ci.github import append_summary, workflow_commands
from harness.verdict import Check, FaultSign, Finding, Judgement, KnownFault, Outputs, Verdict

HOSTILE = "50%, a:b\r\n::error title=x::y\n##[error]z %0A %25 \x1b[31m\x00,"
COMMAND = re.compile(r"::(?P<level>error|warning|notice) title=(?P<title>[^:,]*)::(?P<text>.*)")


def report(judgement: Judgement, *, rows: tuple[Row, ...] = (), label: str = "", history: History = HISTORY) -> Report:
    settings = LoadSettings(2, label=label)
    return make_report(DEPLOYMENT, history, judgement, Path("/runs/one"), settings, rows=rows)


def read(line: str) -> tuple[str, str, str]:
    """Level, title and text of a workflow command, read as GitHub's runner does: %25 is put back last."""
    found = COMMAND.fullmatch(line)
    assert found, line
    title, text = found["title"], found["text"]
    for escaped, plain in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        title = title.replace(escaped, plain)
        text = text.replace(escaped, plain) if plain not in ":," else text
    return found["level"], title, text


def shown(judgement: Judgement, capsys: pytest.CaptureFixture[str], **fields: object) -> list[tuple[str, str, str]]:
    announce(report(judgement, **fields), {"GITHUB_ACTIONS": "true"})  # type: ignore[arg-type] # as named
    captured = capsys.readouterr()
    assert captured.out == "", "stdout holds the report, and nothing else"
    return [read(line) for line in captured.err.splitlines()]


def test_an_invalid_run_is_an_error_and_so_is_each_invalid_check(capsys: pytest.CaptureFixture[str]) -> None:
    run, invalid, unknown = shown(INVALID, capsys, label="nightly")
    assert run[:2] == ("error", "pd-harness nightly: INVALID")
    assert run[2].startswith("1 of 3 checks failed, 1 could not be judged\nTo repeat the run: python -m harness ")
    assert invalid[:2] == ("error", "invalid: token_sources")
    assert invalid[2].startswith("decode computed every prompt token itself")
    assert "load-0, load-1, load-2 and 2 more: answered without KV" in invalid[2]
    assert unknown[:2] == ("warning", "unknown: offload_bytes")


def test_an_unknown_run_does_not_look_as_if_it_had_passed(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(UNKNOWN, capsys)
    assert [(level, title) for level, title, _ in found] == [
        ("error", "pd-harness: UNKNOWN"),
        ("warning", "unknown: outputs"),
    ]
    assert shown(Judgement(()), capsys)[0][:2] == ("error", "pd-harness: UNKNOWN")


def test_a_valid_run_is_one_notice(capsys: pytest.CaptureFixture[str]) -> None:
    ((level, title, text),) = shown(VALID, capsys)
    assert (level, title) == ("notice", "pd-harness: VALID")
    assert text.startswith("all 3 checks passed")


def row(workload: str, verdict: Verdict, **fields: object) -> Row:
    judged = Judgement((Check("outputs", verdict, f"of {workload}"),))
    return Row(workload, "family", "multi", judged, deployment=DEPLOYMENT, **fields)  # type: ignore[arg-type] # as named


def test_of_workloads_only_those_that_count_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    known = KnownFault((FaultSign("outputs"),), ("0.32.0",), ("cpu",), "loses the tail")
    rows = (
        row("right", Verdict.VALID),
        row("wrong", Verdict.INVALID),
        row("unsure", Verdict.UNKNOWN),
        row("known", Verdict.INVALID, known_fault=known),
        Row("elsewhere", "family", "multi", skipped="it needs more"),
    )
    found = shown(INVALID, capsys, rows=rows)
    assert [(level, title) for level, title, _ in found] == [
        ("error", "pd-harness: INVALID"),
        ("error", "invalid: wrong on multi"),
        ("warning", "unknown: unsure on multi"),
    ]


def test_a_hostile_text_is_one_command_and_nothing_of_it_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    check = Check(HOSTILE, Verdict.INVALID, HOSTILE, findings=(Finding(HOSTILE, HOSTILE),))
    history = History((replace(STARTED, argv=("--label", HOSTILE)), *entries()[1:]))
    announce(report(Judgement((check,)), label=HOSTILE, history=history), {"GITHUB_ACTIONS": "true"})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(COMMAND.fullmatch(line) for line in lines)
    assert read(lines[1])[1].startswith("invalid: 50%, a:b ::error title=x::y ##[error]z %0A %25 \ufffd[31m\ufffd,")


def test_escaping_is_that_of_workflow_commands() -> None:
    (line,) = workflow_commands([Announcement(Level.ERROR, "a:b,c%d", "e:f,g%h\ni")])
    assert line == "::error title=a%3Ab%2Cc%25d::e:f,g%25h%0Ai"


def test_at_most_ten_of_each_level_the_last_of_which_counts_the_others() -> None:
    many = [Announcement(level, f"{level} {number}", "") for number in range(12) for level in Level]
    lines = [read(line) for line in workflow_commands(many)]
    for level in Level:
        titles = [title for one, title, _ in lines if one == level]
        assert titles == [*(f"{level} {number}" for number in range(9)), "pd-harness: 3 more"]
    ten = [one for one in many if one.level is Level.ERROR][:10]
    assert [read(line)[1] for line in workflow_commands(ten)] == [one.title for one in ten]


def test_a_long_text_is_cut_before_github_cuts_it(capsys: pytest.CaptureFixture[str]) -> None:
    check = Check("c", Verdict.INVALID, "x" * 100_000, findings=(Finding("f", "y" * 100_000),))
    assert all(len(text) <= 4096 for _, _, text in shown(Judgement((check,)), capsys))


def test_no_credentials(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "GET http://user:sesame@p/metrics failed; Authorization: Bearer sesame"
    check = Check("c", Verdict.INVALID, text, findings=(Finding(text, text),))
    summary = tmp_path / "summary.md"
    announce(report(Judgement((check,))), {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)})
    written = capsys.readouterr().err + summary.read_text()
    assert "sesame" not in written
    assert "failed" in written


@pytest.mark.parametrize("environment", [{}, {"GITHUB_ACTIONS": "false"}, {"GITHUB_STEP_SUMMARY": "{}/x.md"}])
def test_nothing_is_shown_elsewhere(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(report(INVALID), {key: value.format(tmp_path) for key, value in environment.items()})
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_the_python_api_annotates_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert str(report(INVALID)).startswith("INVALID: ")
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "summary.md").exists()


# The step summary


def test_the_summary_is_added_to_what_the_step_has_written(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("of another program")
    announce(report(INVALID), {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)})
    before, _, rest = summary.read_text().partition("\n")
    assert before == "of another program"
    assert rest.startswith("## \u274c pd-harness: INVALID\n\n1 of 3 checks failed, 1 could not be judged\n")


@pytest.mark.parametrize("taken", [0, 1024 * 1024 - 3000, 1024 * 1024 - 60, 1024 * 1024 + 5])
def test_the_summary_never_exceeds_what_github_shows(tmp_path: Path, taken: int) -> None:
    summary = tmp_path / "summary.md"
    summary.write_bytes(b"x" * taken)
    text = "\n".join(f"line {number} \u00e4" for number in range(200_000))
    append_summary(summary, text)
    size = summary.stat().st_size
    assert size <= max(1024 * 1024, taken)
    added = summary.read_bytes()[taken:].decode()
    if size > taken:
        assert "The rest is left out" in added
        kept = added.partition("\n\nThe rest")[0]
        assert kept.splitlines()[1:] == text.splitlines()[: len(kept.splitlines()) - 1], "whole lines"
    assert (size > taken) == (taken < 1024 * 1024 - 200)


def test_a_summary_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce(report(VALID), {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "gone" / "x.md")})
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("the step's summary was not written: ")
    assert "No such file" in last


def test_workloads_of_a_deployment_that_did_not_start_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Judgement((Check("deployment", Verdict.UNKNOWN, "it did not start"),), Outputs())
    announce_rows([Row("cold", "hits", "2p2d", failed)], {"GITHUB_ACTIONS": "true"})
    ((level, title, text),) = [read(line) for line in capsys.readouterr().err.splitlines()]
    assert (level, title) == ("warning", "unknown: cold on 2p2d")
    assert "it did not start" in text
    announce_rows([Row("cold", "hits", "2p2d", skipped="it needs more")], {"GITHUB_ACTIONS": "true"})
    assert capsys.readouterr().err == ""
