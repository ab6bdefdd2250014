"""The process that predicts counters beside a run: when there is one, what becomes of it, and the verdict."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_state import alive

from bench.made_run import Settings, deployment_of, entries_of
from harness.beside import process
from harness.beside.process import Beside
from harness.checkers import judge
from harness.history import Entry, History
from harness.redact import redact_deployment
from harness.scenario import Phase, Request, Scenario
from harness.store import RunStore

SETTINGS = Settings(60, concurrency=8, phase=30, blocks=160, chunks=120)
DEPLOYMENT = deployment_of(SETTINGS)
SCENARIO = Scenario("load", "", (Phase("load", (Request("r-0", (1, 2)), Request("r-1", (1, 2))), 1),))


@pytest.fixture(scope="module")
def entries() -> tuple[Entry, ...]:
    return tuple(entries_of(SETTINGS))


@pytest.fixture(scope="module")
def alone(entries: tuple[Entry, ...]) -> str:
    """The judgement without a second process, as text."""
    return repr(judge(DEPLOYMENT, History(entries)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    directory = tmp_path / "run"
    directory.mkdir()
    with RunStore(directory) as store:
        yield store


@pytest.fixture(autouse=True)
def small_runs_and_two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FEWEST", 2)
    monkeypatch.setattr(process, "_usable_cpus", lambda: 2)


def beside(store: RunStore, senders: int = 1, seconds: float = 60.0) -> Beside:
    return Beside(store.journal, store.logs / "beside.log", senders=senders, seconds=seconds)


def judged(entries: tuple[Entry, ...], by: Beside) -> str:
    return repr(judge(DEPLOYMENT, History(entries), predictions=by.predictions))


def pid_of(by: Beside) -> int:
    assert by.pid is not None
    return by.pid


def test_the_judgement_is_the_same_text_and_no_process_is_left(
    store: RunStore, entries: tuple[Entry, ...], alone: str
) -> None:
    with beside(store) as by:
        assert "second process" in by.begin(SCENARIO, DEPLOYMENT)
        for entry in entries:
            store.record(entry)
        made = by.predictions()
        assert made is not None, (store.logs / "beside.log").read_text()
        assert made.deployment == redact_deployment(DEPLOYMENT)
        assert judged(entries, by) == alone
        pid = pid_of(by)
    assert not alive(pid)


def test_a_process_that_was_killed_changes_nothing(store: RunStore, entries: tuple[Entry, ...], alone: str) -> None:
    with beside(store) as by:
        by.begin(SCENARIO, DEPLOYMENT)
        for entry in entries[:50]:
            store.record(entry)
        os.kill(pid_of(by), signal.SIGKILL)
        for entry in entries[50:]:
            store.record(entry)
        assert by.predictions() is None
        assert judged(entries, by) == alone


def test_a_process_that_is_too_slow_is_ended(store: RunStore, entries: tuple[Entry, ...], alone: str) -> None:
    with beside(store, seconds=0.0) as by:
        by.begin(SCENARIO, DEPLOYMENT)
        os.kill(pid_of(by), signal.SIGSTOP)
        for entry in entries:
            store.record(entry)
        assert by.predictions() is None
        assert not alive(pid_of(by))
        assert judged(entries, by) == alone


def test_a_journal_without_the_end_of_the_run_is_not_waited_for_without_end(
    store: RunStore, entries: tuple[Entry, ...], alone: str, tmp_path: Path
) -> None:
    for entry in entries:
        store.record(entry)
    store.close()
    cut = tmp_path / "cut"
    cut.write_bytes(store.journal.read_bytes()[:-10])
    with Beside(cut, tmp_path / "log", seconds=0.2) as by:
        by.begin(SCENARIO, DEPLOYMENT)
        assert by.predictions() is None
        assert judged(entries, by) == alone


def test_a_journal_that_cannot_be_read_is_not_predicted_from(
    entries: tuple[Entry, ...], alone: str, tmp_path: Path
) -> None:
    with Beside(tmp_path / "nothing", tmp_path / "log") as by:
        by.begin(SCENARIO, DEPLOYMENT)
        assert judged(entries, by) == alone
    assert "FileNotFoundError" in (tmp_path / "log").read_text()


def test_no_process_is_started_without_a_processor_to_spare(store: RunStore) -> None:
    with beside(store, senders=2) as by:
        assert "needs all of the 2 processors" in by.begin(SCENARIO, DEPLOYMENT)
        assert (by.pid, by.predictions()) == (None, None)


def test_no_process_is_started_for_a_small_load(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FEWEST", 3)
    with beside(store) as by:
        assert by.begin(SCENARIO, DEPLOYMENT) == ""
        assert (by.pid, by.predictions()) == (None, None)


def test_no_process_is_started_where_two_would_take_too_much_memory(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MOST", 1)
    with beside(store) as by:
        assert "too much memory" in by.begin(SCENARIO, DEPLOYMENT)
        assert (by.pid, by.predictions()) == (None, None)


def test_a_process_that_cannot_be_started_is_said_to_be_missing(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with beside(store) as by:
        assert "no second process could be started" in by.begin(SCENARIO, DEPLOYMENT)
        assert (by.pid, by.predictions()) == (None, None)


def test_an_error_leaves_no_process(store: RunStore) -> None:
    pids: list[int] = []

    def interrupted() -> None:
        with beside(store) as by:
            by.begin(SCENARIO, DEPLOYMENT)
            pids.append(pid_of(by))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not alive(*pids)


_MAIN = """
import sys
from pathlib import Path
from bench.made_run import Settings, deployment_of
from harness.beside import process
from harness.scenario import Phase, Request, Scenario
process.FEWEST, process._usable_cpus = 0, lambda: 2
by = process.Beside(Path(sys.argv[1]), Path(sys.argv[2]))
by.begin(Scenario("load", "", ()), deployment_of(Settings(1)))
print(by.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_main_process_that_is_killed_takes_it_along(store: RunStore, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MAIN, str(store.journal), str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as main:
        assert main.stdout is not None
        pid = int(main.stdout.readline())
        assert alive(pid)
        main.kill()
    limit = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < limit, "the process is still there"
        os.sched_yield()
