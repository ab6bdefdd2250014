"""No process that the harness starts outlives it, however the harness ends."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from polling import until
from process_state import alive

from harness.deploy.process import ChildProcess, Command

# A server whose worker runs in a session of its own and ignores SIGTERM, like a hung engine core. The worker writes its
# pid when it is ready, and runs until it is killed.
_SERVER = """
import os, signal, subprocess, sys
worker = '''
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + ".new", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
signal.pause()
'''
subprocess.Popen([sys.executable, "-c", worker, sys.argv[1]], start_new_session=True)
{then}
"""
_STAYS = "signal.pause()"
_DIES = "\nwhile not os.path.exists(sys.argv[1]): pass\nsys.exit(7)"
_STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"

_HARNESS = """
import asyncio, signal, sys
from pathlib import Path
from harness.deploy.process import ChildProcess, Command
async def main():
    argv = (sys.executable, "-c", sys.argv[1], sys.argv[2])
    child = ChildProcess.start(Command("server", argv, {}, Path(sys.argv[2] + ".log")), grace=0.2)
    await child.wait()
asyncio.run(main())
"""


def _start(then: str, pid_file: Path) -> ChildProcess:
    command = Command(
        "server",
        (sys.executable, "-c", _SERVER.format(then=then), str(pid_file)),
        dict(os.environ),
        pid_file.with_suffix(".log"),
    )
    return ChildProcess.start(command, grace=0.2)


async def _worker(pid_file: Path) -> int:
    await until(pid_file.exists, "the worker never started")
    return int(pid_file.read_text())


async def test_stop_ends_descendants_that_ignore_sigterm_in_other_sessions(tmp_path: Path) -> None:
    child = _start(_STAYS, tmp_path / "pid")
    worker = await _worker(tmp_path / "pid")
    assert alive(worker)
    await child.stop()
    assert not alive(worker)


async def test_stop_ends_a_server_that_ignores_sigterm(tmp_path: Path) -> None:
    child = _start(_STUBBORN, tmp_path / "pid")
    worker = await _worker(tmp_path / "pid")
    await child.stop()
    assert not alive(worker)
    assert child.status == 128 + signal.SIGKILL


async def test_a_server_that_dies_takes_its_workers_along_and_its_status_is_returned(tmp_path: Path) -> None:
    child = _start(_DIES, tmp_path / "pid")
    worker = await _worker(tmp_path / "pid")
    assert await child.wait() == 7
    assert not alive(worker)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_the_harness_can_be_killed_in_any_way(tmp_path: Path, how: signal.Signals) -> None:
    pid_file = tmp_path / "pid"
    harness = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HARNESS, _SERVER.format(then=_STAYS), str(pid_file), stderr=asyncio.subprocess.DEVNULL
    )
    worker = await _worker(pid_file)
    assert alive(worker)
    harness.send_signal(how)
    async with asyncio.timeout(20):
        await harness.wait()
    await until(lambda: not alive(worker), "the worker outlived the harness")


async def test_a_killed_keeper_leaves_no_server(tmp_path: Path) -> None:
    child = _start(_STAYS, tmp_path / "pid")
    await _worker(tmp_path / "pid")
    server = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    await until(lambda: not alive(server), "the server outlived its keeper")
    # Real workers have a parent-death signal of their own.
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


# A server with a segment of shared memory and a file in its own directory, which it never removes. It makes the segment
# as glibc makes a semaphore: mapped under one name, and then linked to another.
_LEAVES = """
import mmap, os, signal, sys
name = "/dev/shm/" + sys.argv[2]
with open(name + "-meantime", "wb+") as file:
    file.truncate(4096)
    segment = mmap.mmap(file.fileno(), 4096)
os.link(name + "-meantime", name)
os.unlink(name + "-meantime")
open(os.environ["PD_HARNESS_OWN_DIRECTORY"] + "/socket", "w").close()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + ".new", "w").close()
os.rename(sys.argv[1] + ".new", sys.argv[1])
signal.pause()
"""
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
_OWNER = """
import asyncio, os, sys
from pathlib import Path
from harness.deploy.process import ChildProcess, Command
async def main():
    argv = (sys.executable, "-c", *sys.argv[1:4])
    child = ChildProcess.start(Command("server", argv, dict(os.environ), Path(sys.argv[2] + ".log")), grace=0.1)
    await child.wait()
asyncio.run(main())
"""


@pytest.mark.skipif(not _SHARED_MEMORY.is_dir(), reason="shared memory is kept elsewhere on this system")
@pytest.mark.parametrize("in_use", [False, True])
async def test_a_killed_harness_leaves_no_shared_memory_and_no_directory_of_its_servers(
    tmp_path: Path, in_use: bool
) -> None:
    segment, ready, own = (
        _SHARED_MEMORY / f"pd-test-{os.getpid()}-{in_use}",
        tmp_path / "ready",
        tmp_path / "pd" / "server",
    )
    other = segment.with_name(f"{segment.name}-other")
    other.touch()
    try:
        harness = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _OWNER, _LEAVES, str(ready), segment.name),
            env={**os.environ, "PD_HARNESS_OWN_DIRECTORY": str(own)},
        )
        await until(ready.exists, "the server never started")
        assert segment.exists()
        assert (own / "socket").exists()
        # Another process may read the segment too, such as the other server: then it is not removed.
        user = os.open(segment, os.O_RDONLY) if in_use else None
        harness.kill()
        await harness.wait()
        await until(lambda: not own.parent.exists(), "the directory was left")
        assert segment.exists() is in_use
        assert other.exists()
        if user is not None:
            os.close(user)
    finally:
        segment.unlink(missing_ok=True)
        other.unlink(missing_ok=True)
