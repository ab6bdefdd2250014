"""Annotations of a Buildkite build, made by an agent that is not Buildkite's."""

import json
import subprocess
from pathlib import Path

import pytest
from run_fixtures import DEPLOYMENT, HISTORY, INVALID, UNKNOWN, VALID

from harness.reports import LoadSettings, Report, Row, make_report
from harness.reports.ci import announce
from harness.reports.ci.buildkite import context_of
from harness.verdict import Judgement

AGENT = """#!/usr/bin/env python3
import json, pathlib, sys
pathlib.Path({record!r}).write_text(json.dumps([sys.argv[1:], sys.stdin.read()]))
sys.stderr.write({says!r})
sys.exit({status})
"""
ON = {"BUILDKITE": "true", "BUILDKITE_STEP_KEY": "gpu"}


def report(judgement: Judgement, label: str = "nightly", rows: tuple[Row, ...] = ()) -> Report:
    return make_report(DEPLOYMENT, HISTORY, judgement, Path("/runs/one"), LoadSettings(2, label=label), rows=rows)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the agent keeps what it was asked."""
    return agent(tmp_path, monkeypatch)


def agent(where: Path, monkeypatch: pytest.MonkeyPatch, status: int = 0, says: str = "") -> Path:
    file, record = where / "buildkite-agent", where / "asked.json"
    file.write_text(AGENT.format(record=str(record), says=says, status=status))
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{where}:/usr/bin:/bin")
    return record


@pytest.mark.parametrize(("judgement", "style"), [(VALID, "success"), (INVALID, "error"), (UNKNOWN, "warning")])
def test_the_build_is_annotated_with_the_verdict(
    judgement: Judgement, style: str, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(report(judgement), ON)
    arguments, content = json.loads(record.read_text())
    assert arguments == ["annotate", "--style", style, "--context", "pd-harness-nightly-gpu"]
    assert content.splitlines()[0].endswith(f"pd-harness nightly: {judgement.verdict.upper()}")
    assert "To repeat the run" in content
    assert capsys.readouterr() == ("", "")


def test_two_steps_two_labels_and_parallel_jobs_do_not_replace_each_others_verdicts() -> None:
    contexts = [
        context_of(["nightly"], ON),
        context_of([""], ON),
        context_of(["nightly", "multi"], ON),
        context_of(["nightly"], {"BUILDKITE_STEP_KEY": "cpu"}),
        context_of(["nightly"], {"BUILDKITE_STEP_KEY": "", "BUILDKITE_STEP_ID": "0190046e-e199"}),
        context_of(["nightly"], {**ON, "BUILDKITE_PARALLEL_JOB": "0"}),
        context_of(["nightly"], {**ON, "BUILDKITE_PARALLEL_JOB": "1"}),
    ]
    assert len(set(contexts)) == len(contexts)
    assert context_of(["nightly"], ON) == contexts[0], "a step that is tried again replaces its own"
    assert context_of(["a b;$(c)\n"], ON) == "pd-harness-a-b---c---gpu"
    long = context_of(["x" * 500], ON)
    assert len(long) == 100
    assert long.endswith("x-gpu")


def test_a_catalogue_has_its_deployment_in_the_context(record: Path) -> None:
    announce(report(VALID, "", (Row("cold", "hits", "as given", VALID),)), ON)
    assert json.loads(record.read_text())[0][-1] == "pd-harness-as-given-gpu"


def test_an_agent_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent(tmp_path, monkeypatch, 3, "starting\nfatal: Authorization: Token sesame is \x1b[31mwrong\n")
    announce(report(INVALID), ON)
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("the build was not annotated: buildkite-agent ended with status 3: fatal: ")
    assert "sesame" not in err
    assert "\x1b" not in err


def test_a_machine_without_an_agent_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    announce(report(INVALID), ON)
    assert capsys.readouterr().err == "the build was not annotated: buildkite-agent: it is not on the PATH\n"


def test_an_agent_that_does_not_end_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hang(command: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    announce(report(INVALID), ON)
    assert capsys.readouterr().err == "the build was not annotated: buildkite-agent: no answer within 30 s\n"


def test_a_build_elsewhere_is_not_annotated(record: Path) -> None:
    announce(report(INVALID), {"BUILDKITE": ""})
    assert not record.exists()
