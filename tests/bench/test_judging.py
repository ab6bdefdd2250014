"""Judging takes work in proportion to the run. The work is counted in lines of Python, not timed."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from bench.judging import judged, measure, record
from bench.made_run import Settings, deployment_of, history_of
from harness.store import lines_on_disk
from harness.store.lines_on_disk import LinesOnDisk
from harness.verdict import Verdict


def lines_of(call: Callable[[], object]) -> int:
    """Lines that Python ran, each turn of a loop counted."""
    lines = 0

    def trace(_frame: FrameType, event: str, _what: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


def work(requests: int) -> int:
    """What it takes to judge a run whose requests overlap, share beginnings, and go through caches that evict."""
    settings = Settings(requests, concurrency=8, phase=20, output=4, blocks=160, chunks=120, wrong=0)
    deployment, history = deployment_of(settings), history_of(settings)
    return lines_of(lambda: judged(deployment, history))


@pytest.mark.slow
def test_four_times_the_requests_take_about_four_times_the_work() -> None:
    assert work(1200) < 6 * work(300)


def test_a_made_run_has_the_counters_that_its_requests_explain() -> None:
    settings = Settings(300, phase=100, blocks=700, chunks=800)
    judgement = judged(deployment_of(settings), history_of(settings))
    verdicts = {check.name: check.verdict for check in judgement.checks}
    assert verdicts.pop("outputs") is Verdict.INVALID
    assert set(verdicts.values()) == {Verdict.VALID}
    assert judgement.outputs.mismatch == settings.wrong


def test_judging_and_reporting_a_stored_run_read_each_request_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading of a field costs as much as all else that a check does with the request."""
    settings, reads, read = Settings(200, phase=100, blocks=700, chunks=800), 0, LinesOnDisk._read
    monkeypatch.setattr(lines_on_disk, "HELD", 0)
    record(settings, tmp_path)

    def counted(lines: LinesOnDisk, offset: int, length: int, name: str) -> dict[str, Any]:
        nonlocal reads
        reads += 1
        return read(lines, offset, length, name)

    monkeypatch.setattr(LinesOnDisk, "_read", counted)
    measured = measure(settings, tmp_path)
    assert measured.judgement.outputs.mismatch
    assert 2 * settings.requests < reads < 16 * settings.requests
