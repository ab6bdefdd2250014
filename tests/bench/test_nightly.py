"""A night exits with the worst code of its runs; whatever befalls it is a reason in its record and on the page."""

import contextlib
import errno
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from polling import until
from process_state import alive

from bench.nightly import __main__ as nightly
from bench.nightly import archive, night, room
from bench.nightly import deployment as night_deployment
from bench.nightly.record import Night, Result, from_json

ATTACHED = ["--", "--prefill-url", "http://p", "--decode-url", "http://d"]
JOBS = "steady,burst,short_prompts,long_prompts"
VALID = {"verdict": "valid", "completed": 256, "failed": 0, "p99_ttft_ms": 41.5, "outputs": {"mismatch": 0}}


class Ended:
    """Takes the place of a run of the harness: ends with the next status, and leaves the result that was given."""

    statuses: Iterator[int] = iter(())
    results: Mapping[int, str] = {}
    """What is in result.json, by status."""

    def __init__(self, words: Sequence[str]) -> None:
        self.status = next(self.statuses)
        self.timed_out = False
        place = Path(words[words.index("--result-dir") + 1]) / "20260304T010203Z"
        if self.status in self.results:
            place.mkdir()
            (place / "history.jsonl").write_text("")
            (place / "result.json").write_text(self.results[self.status])

    @classmethod
    def start(cls, *words: str, output: Path | None = None) -> Self:
        assert output is not None
        return cls(words)

    def wait(self, _seconds: float) -> int:
        return self.status

    def end(self) -> None:
        pass

    def error(self) -> str:
        return "--base-url: nobody answers"


def checks(verdict: str) -> str:
    found = [{"name": "outputs", "verdict": verdict, "summary": "3 of 256 outputs differ"}]
    return json.dumps(VALID | {"verdict": verdict, "checks": found})


def run(
    directory: Path, statuses: Sequence[int], monkeypatch: pytest.MonkeyPatch, *flags: str, **changes: Any
) -> tuple[int, Night]:
    """A night whose runs end with these statuses: its exit code, and its record."""
    results = {0: json.dumps(VALID), 1: checks("invalid"), 3: checks("unknown")}
    monkeypatch.setattr(Ended, "statuses", iter(statuses))
    monkeypatch.setattr(Ended, "results", results | changes.get("results", {}))
    monkeypatch.setattr(night, "Started", Ended)
    words = ["--result-dir", str(directory), "--jobs", JOBS, "--repeat", "1", "--min-free-mb", "0", *flags, *ATTACHED]
    code = nightly.main(words)
    return code, archive.read_all(directory)[-1]


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
def test_the_night_exits_with_the_worst_status_of_its_runs(
    tmp_path: Path, statuses: Sequence[int], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, record = run(tmp_path, statuses, monkeypatch)
    assert (found, record.exit_code) == (code, code)
    assert record.good == (code == 0)
    assert bool(record.reasons) == (code != 0)


def test_every_report_of_a_night_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, (0, 1, 0, 0), monkeypatch, "--date", "2026-03-04")
    place = tmp_path / "nights" / "2026-03-04"
    for page in (tmp_path / "index.html", place / "index.html", place / "summary.md"):
        assert "3 of 256 outputs differ" in page.read_text()
    lines = [json.loads(line) for line in (tmp_path / "nightly.jsonl").read_text().splitlines()]
    assert [(line["load"], line["verdict"], line["p99_ttft_ms"]) for line in lines][:2] == [
        ("steady", "valid", 41.5),
        ("burst", "invalid", 41.5),
    ]
    assert not list(place.glob(".reserve"))


def test_the_reason_of_a_killed_run_names_the_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that it left is not taken for a verdict."""
    _, record = run(tmp_path, (0, -9, 120, 0), monkeypatch, results={-9: json.dumps(VALID)})
    assert [str(one.result) for one in record.runs] == ["valid", "failed", "failed", "valid"]
    assert record.runs[1].reasons == ["the harness was killed by SIGKILL: nothing was found out"]
    assert "status 120" in record.runs[2].reasons[0]
    assert record.runs[1].metrics == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"verdict": 3, "outputs": 7, "deployment": [], "checks": 1}'])
def test_a_verdict_without_a_readable_result_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    code, record = run(tmp_path, (0, 0, 0, 0), monkeypatch, results={0: content})
    assert code == 4
    assert "result" in record.reasons[0]
    assert len(record.runs) == 4


def test_a_usage_error_of_a_run_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, record = run(tmp_path, (2, 0, 0, 0), monkeypatch)
    assert record.reasons == ["steady: --base-url: nobody answers"]


def test_no_run_is_begun_without_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third run is not begun; what was found out before is kept."""
    free = iter([10**12, 10**12, 10**6])
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: type("Usage", (), {"free": next(free)}))
    code, record = run(tmp_path, (0, 0), monkeypatch, "--min-free-mb", "200")
    assert (code, record.result, len(record.runs)) == (4, Result.FAILED, 2)
    assert "the disk is full: 1 MB are free" in record.reasons[0]
    assert record.reasons[1] == "2 of 4 runs were not begun or did not end"
    assert "the disk is full" in (tmp_path / "index.html").read_text()


def test_a_full_disk_ends_the_night_and_the_reserve_makes_room_for_its_record_and_its_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first run on, nothing can be written while the reserve is there. Another run would fill its room."""
    write = archive.write_atomically

    def on_full_disk(path: Path, text: str) -> None:
        if '"job"' in text and (path.parent / ".reserve").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    monkeypatch.setattr(archive, "write_atomically", on_full_disk)
    code, record = run(tmp_path, (0,), monkeypatch)
    assert (code, len(record.runs), record.state) == (4, 1, "ended")
    assert record.reasons[0] == "the night's record could not be written after run 1: No space left on device"
    assert "No space left" in (tmp_path / "index.html").read_text()


def test_a_page_that_cannot_be_written_is_a_failure_and_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.html").mkdir()
    code, record = run(tmp_path, (0, 0, 0, 0), monkeypatch)
    assert code == 4
    assert "its report could not be written" in record.reasons[0]
    assert [str(one.result) for one in record.runs] == ["valid"] * 4


def test_a_page_that_crashes_is_a_failure_and_costs_no_other_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nightly, "write_night", lambda *_: 1 / 0)
    code, record = run(tmp_path, (0, 0, 0, 0), monkeypatch)
    assert (code, record.exit_code, record.state) == (4, 4, "ended")
    assert "its report could not be written: division by zero" in record.reasons[0]
    assert (tmp_path / "index.html").exists()
    assert len((tmp_path / "nightly.jsonl").read_text().splitlines()) == 4


def test_without_a_writable_directory_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(night, "Started", None)
    assert nightly.main(["--result-dir", str(tmp_path / "file" / "x"), *ATTACHED]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_a_second_night_at_the_same_time_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with archive.locked(tmp_path):
        monkeypatch.setattr(night, "Started", None)
        assert nightly.main(["--result-dir", str(tmp_path), *ATTACHED]) == 2
    assert "another night runs" in capsys.readouterr().err
    assert archive.read_all(tmp_path) == ()


def test_a_second_night_of_a_date_has_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (0, 1):
        run(tmp_path, (status, 0, 0, 0), monkeypatch, "--date", "2026-03-04")
    assert [(one.name, one.exit_code) for one in archive.read_all(tmp_path)] == [("2026-03-04", 0), ("2026-03-04.2", 1)]


def test_with_limits_from_the_first_night_on_the_second_is_compared_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day, beside in (("2026-03-04", ""), ("2026-03-05", "2026-03-04")):
        flags = ("--fail-on", "p99_ttft:+15%", "--date", day)
        code, record = run(tmp_path, (0, 0, 0, 0), monkeypatch, *flags)
        assert (code, record.result, record.compared_with) == (3, Result.UNKNOWN, beside)


def test_a_night_is_kept_even_if_others_have_later_dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in ("2026-03-04", "2026-01-01"):
        run(tmp_path, (0, 0, 0, 0), monkeypatch, "--keep", "1", "--date", day)
    assert (tmp_path / "nights" / "2026-01-01" / "night.json").exists()
    assert (tmp_path / "nights" / "latest" / "night.json").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--jobs", "no_such"], "no job is called no_such"),
        (["--jobs", "faults", *ATTACHED], "launches deployments of its own"),
        (["--fail-on", "p99_ttft"], "cannot be read"),
        (["--fail-on", "p98_ttft:+10%"], "there is no metric 'p98_ttft'"),
        (["--fail-on", "p99_ttft:+10/s"], "cannot be limited in /s"),
        (["--date", "yesterday"], "is no date"),
        (["--repeat", "0"], "at least 1"),
        ([*ATTACHED, "--seed=3"], "--seed=3 after -- is given by the nightly job"),
        ([*ATTACHED, "--result-dir", "elsewhere"], "--result-dir after --"),
        (["--job-timeout", "inf"], "seconds"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_usage_error(
    tmp_path: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A night that begins all the same starts nothing.
    for module in (night, night_deployment):
        monkeypatch.setattr(module, "Started", None)
    try:
        code: object = nightly.main(["--result-dir", str(tmp_path), *flags])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "nights").exists()


def test_credentials_in_the_words_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ATTACHED", [*ATTACHED, "--header", "Authorization=Bearer hush-hush"])
    run(tmp_path, (0, 0, 0, 0), monkeypatch)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or "hush-hush" not in file.read_text()


# Takes the place of `python -m harness`: `serve` prints its state and waits; a load writes its pid, and then either
# waits, or kills `serve` and ends as invalid. It has a child that ignores SIGTERM.
_STAND_IN = """
import json, os, signal, subprocess, sys
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
if name == "serve":
    print(json.dumps(dict(base_url=None, prefill_urls=["http://p"], decode_urls=["http://d"])), flush=True)
else:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    child = subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
    put("child.pid", str(child.pid))
put(name + ".pid", str(os.getpid()))
if name == "load" and {kills!r}:
    os.kill(int((here / "serve.pid").read_text()), signal.SIGKILL)
    sys.exit(1)
while True:
    signal.pause()
"""
_JOB = """
import sys
from bench.nightly import __main__ as nightly, process
process._HARNESS = (sys.executable, "-c", {stand_in!r})
sys.exit(nightly.main(["--result-dir", {here!r}, "--jobs", "steady", *{flags!r}]))
"""


@contextlib.contextmanager
def job(here: Path, *flags: str, kills: bool = False) -> Iterator["subprocess.Popen[str]"]:
    """The night as a process, with ``_STAND_IN`` as the harness; ``kills``: a load ends the deployment.

    If the test fails, the night gets SIGTERM and ends the processes that it started.
    """
    stand_in = _STAND_IN.format(here=str(here), kills=kills)
    code = _JOB.format(stand_in=stand_in, here=str(here), flags=list(flags))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    while not path.exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the night ended with {process.wait(timeout=0.01)}: {process.communicate()}")


def the_record(here: Path) -> Night:
    return from_json(next((here / "nights").glob("2*/night.json")).read_bytes())


def gone(pid: Path) -> bool:
    return not alive(int(pid.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_and_the_deployment_and_is_the_reason(tmp_path: Path, how: signal.Signals) -> None:
    with job(tmp_path) as process:
        wait_for(tmp_path / "load.pid", process)
        assert the_record(tmp_path).state == "running"
        process.send_signal(how)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "Traceback" not in err
    assert (tmp_path / "load.ended").exists()
    assert (tmp_path / "serve.ended").exists()
    assert gone(tmp_path / "child.pid")
    record = the_record(tmp_path)
    assert record.reasons[0] == f"it was interrupted by {how.name}"
    assert "interrupted" in (tmp_path / "index.html").read_text()


@pytest.mark.slow
def test_a_dead_deployment_fails_the_night_and_the_verdict_of_its_run_is_void(tmp_path: Path) -> None:
    with job(tmp_path, kills=True) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    record = the_record(tmp_path)
    assert [(one.status, one.exit_code) for one in record.runs] == [(1, 4)]
    assert "the deployment died" in record.reasons[0]


@pytest.mark.slow
def test_a_run_that_hangs_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    """SIGTERM reaches the run, which ends in order; its child, which ignores SIGTERM, is killed."""
    with job(tmp_path, "--job-timeout", "1.5", "--repeat", "1") as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "time limit" in the_record(tmp_path).runs[0].reasons[0]
    assert gone(tmp_path / "child.pid")
    assert gone(tmp_path / "serve.pid")


@pytest.mark.slow
async def test_a_night_that_is_killed_leaves_nothing_running_and_the_next_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with job(tmp_path) as process:
        wait_for(tmp_path / "load.pid", process)
        process.kill()
        process.communicate(timeout=120)
    await until(lambda: gone(tmp_path / "load.pid") and gone(tmp_path / "serve.pid") and gone(tmp_path / "child.pid"))
    assert the_record(tmp_path).state == "running"
    run(tmp_path, (0, 0, 0, 0), monkeypatch)
    first, second = archive.read_all(tmp_path)
    assert (first.state, first.result) == ("ended", Result.FAILED)
    assert first.reasons[0].startswith("it never ended: its process")
    assert second.good
    assert "it never ended" in (tmp_path / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("status", "code"), [(0, 4), (-15, 4), (2, 2), (4, 4)])
def test_a_deployment_that_does_not_come_up_is_never_valid(
    tmp_path: Path, status: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``serve`` ends with 0 only when it is stopped, so that an end before the loads is a failure."""
    ends = f"import os; os.kill(os.getpid(), {-status})" if status < 0 else f"raise SystemExit({status})"
    ends = f"import sys; print('error: no room for the KV cache.', file=sys.stderr); {ends}"
    from bench.nightly import process  # noqa: PLC0415 - what is replaced

    monkeypatch.setattr(process, "_HARNESS", (sys.executable, "-S", "-c", ends))
    assert nightly.main(["--result-dir", str(tmp_path), "--jobs", "steady", "--min-free-mb", "0"]) == code
    record = the_record(tmp_path)
    assert record.reasons[0] == "the deployment did not come up: no room for the KV cache"
    assert record.reasons[1] == "5 of 5 runs were not begun or did not end"
