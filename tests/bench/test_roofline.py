"""The roofline bench at a small size: it measures, and it reads the load of a stored run."""

import subprocess
import sys
from pathlib import Path

import pytest
import run_fixtures as run

from bench import roofline
from harness.history import ClientHealth, Ended, History, Outcome

ROOT = Path(__file__).parents[2]


def test_a_small_measurement() -> None:
    flags = ("--streams=20", "--concurrency=4", "--tokens=8", "--logprobs=2", "--prompt=5")
    done = subprocess.run(
        [sys.executable, "-m", "bench.roofline", *flags], cwd=ROOT, capture_output=True, text=True, check=True
    )
    head, row = done.stdout.splitlines()
    assert head == "streams of 8 events, a token each, 2 log-probabilities, prompts of 5:"
    assert row.split()[:4] == ["4", "at", "a", "time:"], row


def test_the_load_of_a_run_is_its_median() -> None:
    assert roofline._load_of(run.HISTORY) == roofline.Load(3, 0, 4)


def test_a_run_without_an_answer_is_refused() -> None:
    failed = [Ended(e.at, e.request_id, Outcome.INFO) if isinstance(e, Ended) else e for e in run.HISTORY.entries]
    with pytest.raises(SystemExit, match="no complete answer"):
        roofline._load_of(History(tuple(failed)))


def test_the_place_of_a_run() -> None:
    history = History((*run.HISTORY.entries, ClientHealth(9.0, 0.1, 0.1, 0.01, 0.25)))
    done = [one for one in history.operations() if one.request.of_load and one.outcome is Outcome.OK]
    seconds = max(one.ended.at for one in done) - min(one.sent.at for one in done)
    place = roofline._place(history, 2 * len(done) / seconds)
    assert "50% of what a core can read" in place
    assert "used 25% of a core" in place
