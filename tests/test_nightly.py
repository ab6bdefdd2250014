"""The nightly job exits with the worst of its loads, and a load that told nothing is the worst there is."""

import io
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import nightly

ATTACHED = ["--", "--prefill-url", "http://p", "--decode-url", "http://d"]


def run(directory: Path, statuses: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[dict[str, Any]]]:
    """The job's exit code and lines, its loads ending with these statuses."""
    ends = iter(statuses)

    def ended(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, next(ends))

    monkeypatch.setattr(subprocess, "run", ended)
    code = nightly.main(["--result-dir", str(directory), *ATTACHED])
    return code, [json.loads(line) for line in (directory / "nightly.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ((0, 0, 0, 0), 0),
        ((0, -9, 0, 0), 4),
        ((1, -11, 3, 0), 4),
        ((0, 120, 0, 0), 4),
        ((0, 137, 1, 0), 4),
        ((0, 3, 0, 0), 3),
        ((0, 3, 1, 0), 1),
        ((1, 2, 0, 0), 2),
        ((1, 2, 4, 0), 4),
    ],
)
def test_the_worst_status_is_the_jobs(
    tmp_path: Path, statuses: Sequence[int], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, statuses, monkeypatch)[0] == code


def test_a_load_that_was_killed_says_so_in_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the run before it left in the directory is not taken for its result."""
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "result.json").write_text('{"verdict": "valid"}')
    _, lines = run(tmp_path, (0, -9, 120, 0), monkeypatch)
    assert lines[0]["verdict"] == "valid"
    assert [line["exit_code"] for line in lines] == [0, 4, 4, 0]
    assert (lines[1]["status"], lines[1]["error"]) == (
        -9,
        "the harness was killed by SIGKILL: it has found nothing out",
    )
    assert "verdict" not in lines[1]
    assert "status 120" in lines[2]["error"]


def test_a_result_that_cannot_be_read_is_the_jobs_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "result.json").write_text("{")
    (tmp_path / "nightly.jsonl").write_text("")
    assert run(tmp_path, (0, 0, 0, 0), monkeypatch)[0] == 4
    assert "says nothing about the deployment" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [(0, 4), (-15, 4), (2, 2), (4, 4)])
def test_a_deployment_that_did_not_come_up_is_never_valid(
    tmp_path: Path, status: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment that is held up ends with 0 only when it is told to end: before its loads that is a failure."""

    class Ended:
        stdout = io.StringIO()

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def wait(self) -> int:
            return status

        def terminate(self) -> None:
            pass

        def communicate(self) -> None:
            pass

    monkeypatch.setattr(subprocess, "Popen", Ended)
    with pytest.raises(SystemExit) as ended:
        nightly.main(["--result-dir", str(tmp_path)])
    assert ended.value.code == code
