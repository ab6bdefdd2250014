"""A server that ends while outputs are verified is named at once, not only when the run is over."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


def _descendants(pid: int) -> Iterator[int]:
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        yield child
        yield from _descendants(child)


def _servers(pid: int) -> list[int]:
    """The processes that simulate servers; their keepers have the same words after their own."""
    words = {one: Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0") for one in _descendants(pid)}
    return [one for one, found in words.items() if found[1:3] == [b"-m", b"harness.sim"]]


@pytest.mark.slow
def test_a_server_that_ends_during_verification_is_named_with_its_code(tmp_path: Path) -> None:
    flags = ["--engine", "sim", "--num-prompts", "40", "--num-warmups", "1", "--verify", "all"]
    lines = list[str]()
    with subprocess.Popen(
        [sys.executable, "-m", "harness", *flags, "--result-dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if line.startswith("verification: about"):
                (server,) = _servers(process.pid)
                os.kill(server, signal.SIGKILL)
    assert process.returncode == 4, "".join(lines)
    assert "Traceback" not in "".join(lines)
    named = lines.index("sim: ended with code 137\n")
    assert any(line.startswith("verification/") for line in lines[named:]), "named while the run went on"
