"""The live view fits into any terminal, and leaves the terminal as it found it."""

import errno
import io
import os
import pty
import re
import signal
import subprocess
import sys
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

import pytest
from jumping_clock import JumpingClock
from rich.console import Console

from harness.history import Choice, Ended, FaultBegan, FaultPlanned, Outcome, Sampled, Sent
from harness.observer import PhasePlan, VerifiedSoFar
from harness.reports.progress import make_progress
from harness.reports.progress.live import LiveProgress
from harness.reports.progress.plain import PlainProgress
from harness.scenario import Request

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
HOSTILE = "decode-\x1b[31m0\r\n\u202e"


def told(progress: LiveProgress | PlainProgress, clock: JumpingClock, servers: int = 2) -> None:
    """A load of 100 requests, of which 40 have ended and 8 are in flight after 4 s, under a fault."""
    progress.sending(PhasePlan("random_load", "load", 100, of_load=True, concurrency=8))
    progress.phase("random_load", "load", 100)
    progress.recorded(FaultPlanned(1.0, "pause-1", "pause", "decode-0", "stop decode-0 with SIGSTOP"))
    progress.recorded(FaultBegan(2.0, "pause-1"))
    for number in range(48):
        progress.recorded(Sent(1.0, Request(f"r{number}", (1, 2)), "random_load", "load", 1.0))
    clock.time = 4.0
    for number in range(40):
        ok = Outcome.OK if number else Outcome.INFO
        ended = Ended(1.4, f"r{number}", ok, choices=(Choice((1,) * 10),), token_times=(1.1, 1.4))
        progress.recorded(ended)
        progress.advance(number + 1, 100, 1)
    for number in range(servers):
        first, last = ((0.0, 0.0), (100.0, 9900.0))
        for counted, moved in (first, last):
            reading = Sampled(3.0, f"decode-{number}", 3, 12, 0.41, 10_000, counted, 0, moved, 500, 0, 0, 0)
            progress.recorded(reading)


def view(width: int, height: int, servers: int = 2, *, verifying: bool = False, **options: object) -> list[str]:
    clock = JumpingClock()
    console = Console(file=io.StringIO(), width=width, height=height, **options)  # type: ignore[arg-type]
    progress = LiveProgress(console, clock, redraw=False)
    told(progress, clock, servers)
    if verifying:
        progress.verifying(9.0, 20.0, None)
        progress.verified(VerifiedSoFar(20, 100, 12, 100, 2, 1))
        progress.sending(PhasePlan("verification", "teacher", 8, of_load=False, concurrency=8))
        progress.phase("verification", "teacher", 8)
        progress.advance(2, 8, 1)
    clock.time = 5.0
    console.file = shown = io.StringIO()
    console.print(progress.render())
    return shown.getvalue().splitlines()


def test_the_view_in_a_usual_terminal() -> None:
    assert view(80, 24) == [
        "random_load/load  ━━━━━━━━━━━━──────────────────   40%  5.0 s, about 7.5 s left",
        "40 of 100 requests done, 8 in flight, 1 failed",
        "8.00 requests/s (mean 8.00), 80.0 output tokens/s (mean 80.0)",
        "TTFT p50 100, p99 100 ms; E2E p50 397, p99 397 ms",
        "fault pause-1 at work for 5.0 s: stop decode-0 with SIGSTOP",
        "server    state  running  waiting   KV  computed  cached  transferred",
        "decode-0  busy         3       12  41%  100 (1%)  0 (0%)  9,900 (99%)",
        "decode-1  busy         3       12  41%  100 (1%)  0 (0%)  9,900 (99%)",
    ]


def test_the_view_of_a_verification() -> None:
    assert view(80, 24, verifying=True) == [
        "verification/teacher  ━━━━━━────────────────────   25%  1.0 s, about 3.0 s left",
        "2 of 8 requests done, 0 in flight, 1 failed",
        "0.00 requests/s (mean 0.00), 0.00 output tokens/s (mean 0.00)",
        "fault pause-1 at work for 5.0 s: stop decode-0 with SIGSTOP",
        "verified 12 of about 20, 1 wrong, 2 doubtful; 100 first tokens compared",
        "verification: 1.0 s, about 8.0 s left, at most 19 s",
    ]


@pytest.mark.parametrize("verifying", [False, True])
@pytest.mark.parametrize("servers", [0, 1, 2, 40])
@pytest.mark.parametrize("height", [1, 2, 3, 6, 24])
@pytest.mark.parametrize("width", [2, 10, 40, 60, 80, 200])
def test_every_line_fits_and_what_matters_most_is_kept(width: int, height: int, servers: int, verifying: bool) -> None:
    lines = view(width, height, servers, verifying=verifying)
    assert max(map(len, lines)) < max(width, 2)
    assert 1 <= len(lines) <= max(height - 1, 1)
    assert lines[0].startswith(("verification/teacher" if verifying else "random_load/load")[: width - 2])
    if width >= 60:
        assert (" 25%" if verifying else " 40%") in lines[0]
    if height == 6 and width >= 60:
        assert any("1 failed" in line for line in lines)
        assert any("fault pause-1" in line for line in lines)
        assert any("1 wrong" in line for line in lines) is verifying


def test_a_narrow_terminal_keeps_a_server_s_requests_and_its_transfers() -> None:
    lines = view(60, 24)
    heading = next(line for line in lines if line.startswith("server"))
    assert heading.split() == ["server", "running", "waiting", "KV", "transferred"] or "transferred" in heading
    assert "9,900 (99%)" in lines[-1]


def test_many_servers_are_counted() -> None:
    assert view(80, 40, servers=40)[-1] == "and 28 more servers"


def test_names_from_outside_cannot_move_the_cursor() -> None:
    clock, console = JumpingClock(), Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    progress = LiveProgress(console, clock, redraw=False)
    progress.sending(PhasePlan(HOSTILE, HOSTILE, 4, of_load=True, concurrency=1))
    progress.phase(HOSTILE, HOSTILE, 4)
    progress.recorded(Sampled(1.0, HOSTILE, running=1, cause=HOSTILE))
    progress.recorded(FaultPlanned(1.0, "f", "pause", "d", HOSTILE))
    progress.recorded(FaultBegan(1.0, "f"))
    console.file = shown = io.StringIO()
    console.print(progress.render())
    without_styles = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())
    assert "no answer" in without_styles
    assert not set("\x1b\r\u202e") & set(without_styles)


def test_without_colours_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = view(80, 24, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = view(80, 24, force_terminal=True, color_system="standard")
    assert any(re.search(r"\x1b\[[0-9;]*3[0-9]", line) for line in coloured)
    assert not any(re.search(r"\x1b\[[0-9;]*3[0-9]", line) for line in plain)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in plain] == view(80, 24)


def test_a_server_that_does_not_answer_while_others_do_is_silent() -> None:
    clock, console = JumpingClock(), Console(file=io.StringIO(), width=100, height=24)
    progress = LiveProgress(console, clock, redraw=False)
    progress.phase("s", "p", 4)
    for at, names in ((1.0, ("prefill-0", "decode-0")), (2.0, ("prefill-0",)), (3.0, ("prefill-0",))):
        clock.time = at
        for name in names:
            progress.recorded(Sampled(at, name, running=1, waiting=0))
    clock.time = 4.0
    console.file = shown = io.StringIO()
    console.print(progress.render())
    assert re.search(r"^prefill-0 +busy", shown.getvalue(), re.MULTILINE)
    assert re.search(r"^decode-0 +silent 3.0 s", shown.getvalue(), re.MULTILINE)


def test_servers_are_shown_in_the_whole_run_and_one_that_is_not_up_stands_out() -> None:
    clock, console = JumpingClock(), Console(file=io.StringIO(), width=100, height=24)
    progress = LiveProgress(console, clock, redraw=False)
    for name in ("prefill-0", "decode-0"):
        progress.server(name, "up")
    told(progress, clock, servers=1)
    progress.verifying(9.0, 20.0, None)
    progress.sending(PhasePlan("verification", "teacher", 8, of_load=False, concurrency=8))
    progress.phase("verification", "teacher", 8)
    assert _shown(progress, console).splitlines()[-3:] == ["server     state", "prefill-0  up", "decode-0   up"]
    progress.server("decode-0", "not answering: Connection refused")
    assert _shown(progress, console).splitlines()[-1] == "decode-0   not answering"
    progress.server("decode-0", "ended with code 137")
    progress.server("proxy", "ended with code 1")
    assert _shown(progress, console).splitlines()[-3:] == [
        "prefill-0  up",
        "decode-0   ended with code 137",
        "proxy      ended with code 1",
    ]
    # The next load of the same servers.
    progress.sending(PhasePlan("random_load", "load", 4, of_load=True, concurrency=8))
    progress.phase("random_load", "load", 4)
    assert "decode-0   ended with code 137" in _shown(progress, console)


@pytest.mark.parametrize("width", [40, 60, 200])
@pytest.mark.parametrize("height", [8, 20])
def test_the_state_of_a_server_that_is_not_up_is_kept_in_a_small_terminal(width: int, height: int) -> None:
    clock, console = JumpingClock(), Console(file=io.StringIO(), width=width, height=height)
    progress = LiveProgress(console, clock, redraw=False)
    told(progress, clock, servers=40)
    progress.server("decode-39", "ended with code 137")
    (line,) = (line for line in _shown(progress, console).splitlines() if line.startswith("decode-39"))
    assert "ended with code 137" in line


def test_a_change_of_a_server_s_state_is_one_line_that_stays() -> None:
    for live in (True, False):
        clock, stream = JumpingClock(), io.StringIO()
        console = Console(file=stream, width=100, height=24)
        progress = LiveProgress(console, clock, redraw=False) if live else PlainProgress(stream, clock)
        states = ("up", "up", f"not answering: {HOSTILE}", f"not answering: {HOSTILE}", "ended with code 1", "up", "up")
        for state in states:
            progress.server("decode-0", state)
        lines = stream.getvalue().splitlines()
        assert len(lines) == 3
        assert lines[0].startswith("decode-0: not answering: decode-")
        assert lines[1:] == ["decode-0: ended with code 1", "decode-0: up"]
        assert not set("\x1b\r\u202e") & set(stream.getvalue())


def test_the_next_load_of_a_sweep_begins_without_the_last_one_s_verification() -> None:
    clock, console = JumpingClock(), Console(file=io.StringIO(), width=100, height=24)
    progress = LiveProgress(console, clock, redraw=False)
    progress.verifying(9.0, 20.0, None)
    progress.verified(VerifiedSoFar(20, 100, 12, 100, 2, 1))
    progress.sending(PhasePlan("verification", "teacher", 4, of_load=False, concurrency=8))
    progress.phase("verification", "teacher", 4)
    progress.advance(4, 4, 0)
    assert "1 wrong" in _shown(progress, console)
    assert "choosing what to ask next" in _shown(progress, console)
    progress.sending(PhasePlan("random_load", "load", 4, of_load=True, concurrency=8))
    progress.phase("random_load", "load", 4)
    assert "wrong" not in _shown(progress, console)
    progress.advance(4, 4, 0)
    assert "waiting for the servers to settle" in _shown(progress, console)


def _shown(progress: LiveProgress, console: Console) -> str:
    console.file = shown = io.StringIO()
    console.print(progress.render())
    return shown.getvalue()


def test_the_lines_that_are_left_have_the_load_s_latencies() -> None:
    clock, stream = JumpingClock(), io.StringIO()
    with LiveProgress(Console(file=stream, width=200), clock, redraw=False) as progress:
        told(progress, clock)
    assert "TTFT p50 100, p99 100 ms; E2E p50 397, p99 397 ms" in stream.getvalue()


def test_plain_lines_have_the_same_figures() -> None:
    clock, stream = JumpingClock(), io.StringIO()
    with PlainProgress(stream, clock) as progress:
        told(progress, clock)
        clock.time = 11.0
        progress.advance(41, 100, 1)
        so_far = VerifiedSoFar(20, 100, 12, 100, 2, 1)
        progress.verified(so_far)
        progress.verified(so_far)
    lines = stream.getvalue().splitlines()
    assert lines[-3] == (
        "random_load/load: 41/100 requests, 1 failed, 3.73 requests/s, 11 s; 8 in flight; 36.4 output tokens/s; "
        "TTFT p50 100, p99 100 ms; E2E p50 397, p99 397 ms; "
        "decode-0: 3 running, 12 waiting, KV 41%, prompt tokens 100 (1%) computed, 9,900 (99%) transferred; "
        "decode-1: 3 running, 12 waiting, KV 41%, prompt tokens 100 (1%) computed, 9,900 (99%) transferred; "
        "fault pause-1 at work for 11 s: stop decode-0 with SIGSTOP; about 16 s left"
    )
    assert lines[-2] == "verification: verified 12 of about 20, 1 wrong, 2 doubtful; 100 first tokens compared"


def test_a_log_gets_plain_lines_although_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(make_progress(clock=JumpingClock(), stream=io.StringIO()), PlainProgress)


def on_a_terminal(tmp_path: Path, *, resize: bool, by: int | None) -> tuple[int, str]:
    """A run on a pseudo-terminal, which may be resized and get a signal while its load is sent: exit code, output."""
    own, other = pty.openpty()
    ioctl(other, TIOCSWINSZ, pack("HHHH", 24, 80, 0, 0))
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["--engine", "sim", "--num-prompts", "60", "--num-warmups", "1", "--result-dir", str(tmp_path)]
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    environment.pop("LINES", None)
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=other, stderr=other, env=environment)
    os.close(other)
    shown, acted = "", False
    with os.fdopen(own, "rb", buffering=0) as terminal:
        while part := _read(terminal):
            shown += part.decode(errors="replace")
            if not acted and "in flight" in shown:
                acted = True
                if resize:
                    ioctl(terminal.fileno(), TIOCSWINSZ, pack("HHHH", 5, 40, 0, 0))
                    process.send_signal(signal.SIGWINCH)
                if by is not None:
                    process.send_signal(by)
    assert acted
    return process.wait(), shown


def _read(terminal: io.FileIO) -> bytes:
    try:
        return terminal.read(65536) or b""
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        # The last writer has closed the pseudo-terminal.
        return b""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resize", "by", "code"),
    [(False, signal.SIGINT, 3), (False, signal.SIGTERM, 3), (True, None, 0)],
    ids=["interrupted", "terminated", "resized"],
)
def test_the_cursor_is_shown_again_and_the_last_lines_are_whole(
    tmp_path: Path, resize: bool, by: int | None, code: int
) -> None:
    ended, shown = on_a_terminal(tmp_path, resize=resize, by=by)
    assert ended == code
    assert HIDE in shown
    assert shown.rfind(SHOW) > shown.rfind(HIDE)
    assert "Traceback" not in shown
    assert ("UNKNOWN" if by else "VALID") in shown[shown.rfind(SHOW) :]
