"""Commands that a fault ends and that are started again: which died by themselves, and where their log begins."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from polling import until

from harness.clock import MonotonicClock
from harness.deploy.nursery import Nursery
from harness.deploy.ports import free_ports
from harness.errors import DeployError
from harness.observer import SILENT

# Answers every request with 200. If it is asked to, it writes a line with its number of starts, and ends at a request.
_SERVER = """
import http.server, os, pathlib, sys
starts = pathlib.Path(sys.argv[2])
number = int(starts.read_text()) + 1 if starts.exists() else 1
starts.write_text(str(number))
print(f"ValueError: start {number}", flush=True)
if sys.argv[3] == str(number):
    sys.exit(9)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(7)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Started:
    """A nursery with one server."""

    def __init__(self, directory: Path) -> None:
        self.nursery = Nursery(directory, MonotonicClock(), 30, SILENT)
        self._directory = directory
        [port] = free_ports(1)
        self.url, self._port = f"http://127.0.0.1:{port}", port

    async def start(self, *, fails_at_start: int = 0) -> None:
        argv = [sys.executable, "-c", _SERVER, str(self._port), str(self._directory / "starts"), str(fails_at_start)]
        self.nursery.start("decode-0", argv, os.environ)
        await self.nursery.all_answer({"decode-0": self.url})

    async def kill(self) -> None:
        for pid in self.nursery.pids("decode-0"):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not self.nursery.pids("decode-0"))
        await until(lambda: self.nursery._processes["decode-0"].status is not None)


@pytest_asyncio.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    made = Started(tmp_path)
    yield made
    await made.nursery.stop()


async def test_a_process_that_a_fault_ended_has_not_died_by_itself(started: Started) -> None:
    await started.start()
    before = started.nursery.pids("decode-0")
    started.nursery.will_end("decode-0")
    await started.kill()
    assert started.nursery.dead() == {}
    await started.nursery.restart("decode-0")
    assert started.nursery.dead() == {}
    after = started.nursery.pids("decode-0")
    assert after
    assert not set(after) & set(before)


async def test_a_process_that_ends_without_a_fault_has_died_by_itself(started: Started) -> None:
    await started.start()
    await started.kill()
    assert "status 137" in started.nursery.dead()["decode-0"]


async def test_a_death_before_a_restart_is_still_reported_after_it(started: Started) -> None:
    await started.start()
    await started.kill()
    await started.nursery.restart("decode-0")
    assert "status 137" in started.nursery.dead()["decode-0"]


async def test_a_process_that_dies_after_its_restart_has_died_by_itself(started: Started) -> None:
    await started.start()
    started.nursery.will_end("decode-0")
    await started.kill()
    await started.nursery.restart("decode-0")
    await started.kill()
    assert "status 137" in started.nursery.dead()["decode-0"]


async def test_a_restart_that_fails_quotes_the_new_log_alone(started: Started) -> None:
    await started.start(fails_at_start=2)
    started.nursery.will_end("decode-0")
    await started.kill()
    with pytest.raises(DeployError, match="ended with status 9") as failure:
        await started.nursery.restart("decode-0")
    assert "start 2" in str(failure.value)
    assert "start 1" not in str(failure.value)
    assert "status 9" in started.nursery.dead()["decode-0"]
