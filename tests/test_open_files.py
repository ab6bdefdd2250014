"""How many files this process has open, and may have open."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from harness.open_files import file_limit, open_files


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists a process's files in /proc")
def test_each_open_file_counts(tmp_path: Path) -> None:
    before = open_files()
    assert before is not None
    with (tmp_path / "one").open("w"), (tmp_path / "two").open("w"):
        assert open_files() == before + 2
    assert open_files() == before


def test_the_limit_is_raised_as_far_as_allowed() -> None:
    """In another process, since a limit holds for all of this one."""
    script = (
        "import resource\n"
        "from harness.open_files import file_limit, raise_file_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))\n"
        "before = file_limit(); raise_file_limit(); print(before, file_limit())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100", "200"]


def test_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert file_limit() is None
