"""The nightly job exits with the worst code of its loads; a load without a result is the worst of all."""

import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import nightly

ATTACHED = ["--", "--prefill-url", "http://p", "--decode-url", "http://d"]


def run(directory: Path, statuses: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[dict[str, Any]]]:
    """The job's exit code and lines if its loads end with these statuses."""
    ends = iter(statuses)

    class Ended:
        stdin = None

        def __init__(self, *_: object, **__: object) -> None:
            self.status = next(ends)

        def wait(self) -> int:
            return self.status

    monkeypatch.setattr(subprocess, "Popen", Ended)
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
def test_the_job_exits_with_the_worst_status_of_its_loads(
    tmp_path: Path, statuses: Sequence[int], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, statuses, monkeypatch)[0] == code


def test_the_line_of_a_killed_load_names_the_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of the run before it, which is still in the directory, is not taken for the load's."""
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "result.json").write_text('{"verdict": "valid"}')
    _, lines = run(tmp_path, (0, -9, 120, 0), monkeypatch)
    assert lines[0]["verdict"] == "valid"
    assert [line["exit_code"] for line in lines] == [0, 4, 4, 0]
    assert (lines[1]["status"], lines[1]["error"]) == (-9, "the harness was killed by SIGKILL: nothing was found out")
    assert "verdict" not in lines[1]
    assert "status 120" in lines[2]["error"]


def test_an_unreadable_result_is_a_failure_of_the_job(
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
    """``serve`` ends with 0 only when it is stopped, so that an end before the loads is a failure."""

    class Ended:
        stdout, stdin = io.StringIO(), None

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def wait(self) -> int:
            return status

    monkeypatch.setattr(subprocess, "Popen", Ended)
    with pytest.raises(SystemExit) as ended:
        nightly.main(["--result-dir", str(tmp_path)])
    assert ended.value.code == code


def test_an_unwritable_index_is_reported_before_the_first_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nightly.jsonl").mkdir()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a load was begun"))
    with pytest.raises(SystemExit) as ended:
        nightly.main(["--result-dir", str(tmp_path), *ATTACHED])
    assert ended.value.code == 2
    assert "nightly.jsonl cannot be written" in capsys.readouterr().err


# Takes the place of `python -m harness`: `serve` prints its state and waits; a load writes its pid, and then either
# waits, or kills `serve` and ends as invalid.
_STAND_IN = """
import json, os, signal, sys
from pathlib import Path
here = Path({here!r})
def put(name, text):
    (here / (name + ".new")).write_text(text)
    (here / (name + ".new")).rename(here / name)
def end(*_):
    put(name + ".ended", "")
    sys.exit(3)
name = "serve" if sys.argv[1] == "serve" else "load"
signal.signal(signal.SIGTERM, end)
put(name + ".pid", str(os.getpid()))
if name == "serve":
    print(json.dumps(dict(base_url=None, prefill_urls=["http://p"], decode_urls=["http://d"])), flush=True)
elif {kills!r}:
    os.kill(int((here / "serve.pid").read_text()), signal.SIGKILL)
    sys.exit(1)
while True:
    signal.pause()
"""
_JOB = """
import sys
from bench import nightly
nightly._HARNESS = (sys.executable, "-c", {stand_in!r})
sys.exit(nightly.main(["--result-dir", {here!r}]))
"""


@contextlib.contextmanager
def job(here: Path, *, kills: bool) -> Iterator["subprocess.Popen[str]"]:
    """The job as a process, with ``_STAND_IN`` as the harness; ``kills``: a load ends the deployment.

    If the test fails, the job gets SIGTERM and ends the processes that it started.
    """
    stand_in = _STAND_IN.format(here=str(here), kills=kills)
    code = _JOB.format(stand_in=stand_in, here=str(here))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    while not path.exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the job ended with {process.wait(timeout=0.01)}: {process.communicate()}")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_job_ends_its_load_and_its_deployment(tmp_path: Path, how: int) -> None:
    with job(tmp_path, kills=False) as process:
        wait_for(tmp_path / "load.pid", process)
        process.send_signal(how)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "Traceback" not in err
    assert (tmp_path / "load.ended").exists()
    assert (tmp_path / "serve.ended").exists()


def test_a_dead_deployment_ends_the_job_as_a_failure_and_the_verdict_of_its_load_is_void(tmp_path: Path) -> None:
    with job(tmp_path, kills=True) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    lines = [json.loads(line) for line in (tmp_path / "nightly.jsonl").read_text().splitlines()]
    assert [(line["status"], line["exit_code"]) for line in lines] == [(1, 4)]
    assert "the deployment that was launched for the loads died" in err
