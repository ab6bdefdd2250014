"""What the kernel says of processes (``/proc``), and signals to them. Linux only."""

import os
import signal
from pathlib import Path

STOPPED = "T"
"""The state of a process after SIGSTOP (proc(5))."""


class ProcessTable:
    """The machine's processes; tests use another one."""

    def state(self, pid: int) -> str | None:
        """The process's state as one letter, as in ``ps``: R, S, D, T, Z; None if there is no such process."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The command's name, in brackets, may contain spaces and brackets.
        return text.rpartition(")")[2].split()[0]

    def cpu_ticks(self, pid: int) -> int | None:
        """Clock ticks that the process has computed for; None if there is no such process."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        user, system = text.rpartition(")")[2].split()[11:13]
        return int(user) + int(system)

    def send(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal; False if there is no such process."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def is_gone(self, pid: int) -> bool:
        """Whether the process has ended; one that nobody has waited for yet (state Z) has."""
        return self.state(pid) in (None, "Z", "X")
