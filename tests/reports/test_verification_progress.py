"""Progress says how long verification will take, and how much of its time has passed."""

import io

from jumping_clock import JumpingClock
from rich.console import Console

from harness.reports.progress.live import LiveProgress
from harness.reports.progress.plain import PlainProgress
from harness.reports.progress.verifying import estimate


def test_the_estimate_names_the_limits_that_there_are() -> None:
    assert estimate(12.0, 20.0, 46_000) == "verification: about 12 s (budget 20 s, 46,000 tokens)"
    assert estimate(12.0, 60.0, None) == "verification: about 12 s (budget 60 s)"
    assert estimate(12.0, None, None) == "verification: about 12 s"


def test_plain_lines_have_the_time_that_has_passed() -> None:
    clock, stream = JumpingClock(), io.StringIO()
    progress = PlainProgress(stream, clock)
    progress.phase("load", "load", 2)
    progress.advance(2, 2, 0)
    clock.time = 30.0
    progress.verifying(12.0, 20.0, 46_000)
    progress.phase("verification", "teacher", 4)
    clock.time = 37.0
    progress.advance(4, 4, 0)
    progress.close()
    lines = stream.getvalue().splitlines()
    # The load's last line comes before the estimate, and has no share in the time of the verification.
    assert lines[1].startswith("load/load: ended: ")
    assert lines[1].endswith("30 s")
    assert lines[2] == "verification: about 12 s (budget 20 s, 46,000 tokens)"
    assert lines[-1].endswith(", verification 7.0 s of 20 s")


def test_the_drawing_on_a_terminal_has_it_too() -> None:
    clock, stream = JumpingClock(), io.StringIO()
    console = Console(file=stream, width=200)
    progress = LiveProgress(console, clock, redraw=False)
    progress.verifying(12.0, 20.0, None)
    progress.phase("verification", "teacher", 4)
    clock.time = 7.0
    console.print(progress.render())
    assert "verification: about 12 s (budget 20 s)" in stream.getvalue()
    assert "verification: 7.0 s, about 5.0 s left, at most 13 s" in stream.getvalue()
