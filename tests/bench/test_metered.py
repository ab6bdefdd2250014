"""What a command costs, with all the processes that it starts."""

import os
import sys
from pathlib import Path

import pytest
from polling import until
from process_state import alive

from bench.metered import FailedError, Metered, metered

_CORE = min(os.sched_getaffinity(0))
_SPIN = "import time\nwhile time.process_time() < 0.3: pass"
_ORPHAN = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {_SPIN!r}])"


def test_a_process_that_outlives_its_parent_is_counted() -> None:
    assert metered([sys.executable, "-c", _ORPHAN], _CORE, {}, 30).cpu >= 0.3


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(FailedError, match="ended with 3"):
        metered([sys.executable, "-c", "raise SystemExit(3)"], _CORE, {}, 30)
    assert metered([sys.executable, "-c", "raise SystemExit(3)"], _CORE, {}, 30, accepted=(0, 3)).cpu > 0


async def test_a_command_that_takes_too_long_is_ended_with_its_processes(tmp_path: Path) -> None:
    child = f"import os, signal; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); signal.pause()"
    forever = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(FailedError, match="ended with 124"):
        metered([sys.executable, "-c", forever], _CORE, {}, 3)
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not alive(pid), "the command's process still runs")


def test_cpu_time_between_two_moments_is_read_from_the_samples() -> None:
    spent = Metered(4.0, 3.0, "", [(10.0, 0.0), (12.0, 2.0), (14.0, 3.0)])
    assert spent.between(11.0, 13.0) == pytest.approx(1.5)
    assert spent.between(0.0, 99.0) == pytest.approx(3.0)
