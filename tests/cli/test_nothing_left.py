"""After a run with faults, nothing of the harness is left: neither in its own process nor outside, however it ended."""

import asyncio
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from polling import until
from what_is_left import MARK, is_free, marked, shared_memory

import harness
from harness.faults import parse_fault, relays_for

pytestmark = pytest.mark.slow

FAULTS = (
    "pause:server=decode-0,after=0.1,for=0.2",
    "kill:server=prefill-0,after=0.3,for=0.1",
    "link:link=decode-0,how=cut,after=1.5,for=0.2",
)
LONG = ("--num-prompts", "2000", "--concurrency", "4", "--random-output-len", "4")


def run_once() -> None:
    relays = relays_for(map(parse_fault, FAULTS))
    with harness.simulate(relays=relays, separate_processes=True, num_warmups=1) as deployment:
        load = harness.RandomLoad(num_prompts=40, concurrency=8, input_len=(20, 60), output_len=4)
        deployment.run(load, faults=FAULTS, verify="sample:4", request_timeout=20, settle_timeout=1)


_COUNTED = """
import gc, sys, time
sys.path[:0] = sys.argv[1:]
from test_nothing_left import run_once
from what_is_left import descriptors, threads
for _ in range(3):
    run_once()
    # A run's objects refer to each other: the journal is closed when the garbage collector has found them.
    gc.collect()
    # A thread that has ended may be listed for a moment: the fewest of two seconds count.
    fewest, until = len(threads()), time.monotonic() + 2
    while time.monotonic() < until:
        fewest = min(fewest, len(threads()))
    print(fewest, sorted(descriptors().values()), sep="\t")
"""


async def test_a_process_that_made_runs_has_the_threads_and_descriptors_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a process of its own, since other tests start threads, too. The first run may start what later runs use."""
    mark, shared = uuid.uuid4().hex, shared_memory()
    monkeypatch.setenv(MARK, mark)
    here = Path(__file__).parent
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _COUNTED, str(here), str(here.parent / "support")), stdout=asyncio.subprocess.PIPE
    )
    held = (await process.communicate())[0].decode().splitlines()
    assert process.returncode == 0
    assert len(held) == 3
    assert held[2] == held[1], "threads, descriptors"
    await until(lambda: not marked(mark), "processes are left", within=60)
    # Other programs of the machine have segments for a moment.
    await until(lambda: shared_memory() <= shared, "shared memory is left", within=30)


@pytest.mark.parametrize(
    "fault", ["pause:server=decode-0,after=0,for=900", "link:link=decode-0,how=half-open,after=0,for=900"]
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_a_harness_that_is_ended_while_a_fault_is_at_work(
    tmp_path: Path, fault: str, number: signal.Signals
) -> None:
    mark, shared = uuid.uuid4().hex, shared_memory()
    words = ["--engine", "sim", *LONG, "--fault", fault, "--plain", "--result-dir", str(tmp_path)]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harness", *words), stdout=quiet, stderr=quiet, env=os.environ | {MARK: mark}
    )
    try:
        await until(lambda: "fault_proved" in _history(tmp_path), "the fault was not caused", within=120)
        ports = _ports(tmp_path)
        assert not any(map(is_free, ports))
        assert len(marked(mark)) > len(ports)
    finally:
        process.send_signal(number)
        await process.wait()
    await until(lambda: not marked(mark), f"still there: {marked(mark)}", within=60)
    assert all(map(is_free, ports))
    # Other programs of the machine have segments for a moment.
    await until(lambda: shared_memory() <= shared, "shared memory is left", within=30)


def _history(directory: Path) -> str:
    journal = directory / "latest" / "history.jsonl"
    return journal.read_text(encoding="utf-8", errors="replace") if journal.exists() else ""


def _ports(directory: Path) -> list[int]:
    facts = json.loads((directory / "latest" / "deployment.json").read_text(encoding="utf-8"))
    urls = [facts["proxy_url"], *(server["url"] for server in facts["servers"])]
    return [port for url in urls if (port := urlsplit(url).port) is not None]
