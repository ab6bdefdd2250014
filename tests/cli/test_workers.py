"""Runs whose load is sent by several processes."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Ran, run_harness
from polling import until
from process_state import alive

pytestmark = pytest.mark.slow

SIM = ("--engine", "sim", "--plain", "--num-warmups", "1")


def judged(ran: Ran) -> dict[str, Any]:
    """What a run concluded, without what noise and time decide."""
    result = ran.result
    outputs = {name: result["outputs"][name] for name in ("requests", "mismatch", "unverified")}
    checks = {check["name"]: check["verdict"] for check in result["checks"]}
    counts = {key: result[key] for key in ("verdict", "completed", "failed", "total_input_tokens", "kv_transfer")}
    return {**counts, "checks": checks, "outputs": outputs}


def test_four_workers_come_to_the_same_conclusion_as_one(tmp_path: Path) -> None:
    load = (*SIM, "--num-prompts", "24", "--seed", "5", "--verify", "all")
    one = run_harness(tmp_path / "one", *load, "--workers", "1")
    four = run_harness(tmp_path / "four", *load, "--workers", "4")
    assert one.status == 0, one.output + one.errors
    assert judged(four) == judged(one)
    assert "the clocks of 4 workers agreed" in four.output
    assert "the clocks of" not in one.output


def test_workers_send_the_catalogues_load_too(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, *SIM, "--workload", "many_identical", "--workers", "2")
    assert ran.status == 0, ran.output + ran.errors


async def begun(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    """A run that has sent 60 or more requests of its load, 32 at a time."""
    # A background process of a shell ignores SIGINT; this process must handle it as in a terminal.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = (*SIM, "--result-dir", str(directory), "--num-prompts", "300", "--random-output-len", "60", *arguments)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    history = directory / "latest" / "history.jsonl"
    await until(lambda: history.exists() and history.read_text().count('"phase":"load"') >= 60, within=60)
    return process


def workers_of(pid: int) -> list[int]:
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [one for one in children if b"harness.fleet.worker" in Path(f"/proc/{one}/cmdline").read_bytes()]


async def test_a_killed_worker_makes_the_run_unknown_by_the_harnesss_own_fault(tmp_path: Path) -> None:
    process = await begun(tmp_path, "--workers", "2", "--verify", "sample:4")
    workers = workers_of(process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    out, err = await process.communicate()
    assert process.returncode == 4, out.decode() + err.decode()
    assert out.startswith(b"UNKNOWN: "), err.decode()
    assert b"was ended by signal 9 (SIGKILL)" in out
    assert b"Traceback" not in err
    history = (tmp_path / "latest" / "history.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in history]
    sent = {entry["request"]["request_id"] for entry in entries if entry["kind"] == "sent"}
    crashed = [entry for entry in entries if entry.get("ending") == "client_crashed"]
    assert sent == {entry["request_id"] for entry in entries if entry["kind"] == "ended"}
    assert crashed
    assert {entry["outcome"] for entry in crashed} == {"info"}
    assert not any(map(alive, workers))


async def test_an_interrupted_run_ends_its_workers_and_is_judged(tmp_path: Path) -> None:
    process = await begun(tmp_path, "--workers", "2")
    workers = workers_of(process.pid)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 3, out.decode() + err.decode()
    assert out.startswith(b"UNKNOWN: ")
    assert b"the run ended early" in out.splitlines()[0]
    assert b"Traceback" not in err
    entries = [json.loads(line) for line in (tmp_path / "latest" / "history.jsonl").read_text().splitlines()]
    interrupted = [entry for entry in entries if entry.get("ending") == "interrupted"]
    assert interrupted
    assert len([e for e in entries if e["kind"] == "sent"]) == len([e for e in entries if e["kind"] == "ended"])
    assert not any(map(alive, workers))


async def test_workers_end_when_the_run_is_killed(tmp_path: Path) -> None:
    process = await begun(tmp_path, "--workers", "2")
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.kill()
    await process.communicate()
    await until(lambda: not any(map(alive, workers)))
