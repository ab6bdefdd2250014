"""Commands of the harness as processes that end with the night, whatever happens to it."""

import math
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

import harness
from harness.errors import ExitCode
from harness.redact import redact_text
from harness.reports.text import clean

_HARNESS = (sys.executable, "-m", "harness")
# Ends the command when this job ends, even by kill -9. The command has 60 seconds to end by itself.
_KEPT = (sys.executable, str(Path(harness.__file__).parent / "deploy" / "keeper.py"), "60")
_SIGNALS = 128
"""If a process is killed by signal N, its keeper ends with status 128 + N."""
_LAST_LINES = 30


@dataclass
class Started:
    """A command of the harness. What it prints is printed, too, and its last lines are remembered."""

    process: "subprocess.Popen[str]"
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    timed_out: bool = False
    _copying: threading.Thread | None = None

    @classmethod
    def start(cls, *words: str, output: Path, keep_stdout: bool = False) -> Self:
        """Start ``python -m harness WORDS``.

        ``output``: a file for what it prints; ``keep_stdout``: standard output is left to the caller, and is not
        printed (``process.stdout``).
        """
        process = subprocess.Popen(
            [*_KEPT, *_HARNESS, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if keep_stdout else subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        started = cls(process)
        stream = process.stderr if keep_stdout else process.stdout
        started._copying = threading.Thread(target=started._copy, args=(stream, output), daemon=True)
        started._copying.start()
        return started

    def error(self) -> str:
        """The last error that it printed, without ``error:``; empty if it printed none."""
        errors = [line.partition("error: ")[2] for line in self.last_lines if line.startswith("error: ")]
        return clean(redact_text(errors[-1]), 400).rstrip(".") if errors else ""

    def wait(self, seconds: float = math.inf) -> int:
        """Wait for its end, and end it after ``seconds``; returns its status (-N: killed by signal N)."""
        try:
            self.process.wait(None if math.isinf(seconds) else seconds)
        except subprocess.TimeoutExpired:
            self.timed_out = True
            self.end()
        return self.status()

    def status(self) -> int:
        """The status of a process that has ended or is about to."""
        status = self.process.wait()
        if self._copying:
            self._copying.join()
        return _SIGNALS - status if status > _SIGNALS else status

    def end(self) -> None:
        """End it with all processes that it started: in order, and by force after 60 s."""
        if self.process.stdin:
            # The keeper may have ended already.
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.wait()
        if self._copying:
            self._copying.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()

    def ended_within(self, seconds: float) -> bool:
        """Whether it has ended, or ends within ``seconds``."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None

    def _copy(self, stream: IO[str], output: Path) -> None:
        """Copy what it prints, until it and its descendants have ended. A full disk costs the file, not the run."""
        file = None
        with suppress(OSError):
            file = output.open("w", encoding="utf-8", errors="replace")
        for line in stream:
            self.last_lines.append(line.rstrip())
            print(line, end="", flush=True)
            if file is not None:
                with suppress(OSError):
                    file.write(line)
        if file is not None:
            with suppress(OSError):
                file.close()


def exit_code(status: int) -> ExitCode:
    """The exit code that a process's status amounts to: whatever is none of the harness's is a failure of it."""
    return ExitCode(status) if status in set(ExitCode) else ExitCode.HARNESS


def how_it_ended(status: int) -> str:
    """What a status says that is no exit code of the harness."""
    if status >= 0:
        return f"ended with status {status}, which is none of its exit codes"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
