"""If a launched server dies, the run is unknown with exit code 4."""

from dataclasses import replace
from pathlib import Path

import counted_run as run
import pytest

from harness.checkers import judge
from harness.cli import main
from harness.deploy.nursery import Nursery
from harness.history import DeadProcess, Ended, Ending, Entry, History, Outcome, RunEnded
from harness.pytest_plugin.held import judged
from harness.run import Carried
from harness.store import load_run
from harness.verdict import Verdict

DIED = "prefill-0 ended with status 137: its log ends:\nkilled\nIts whole log: logs/prefill-0.log"


def with_a_death(history: History, **answer: object) -> History:
    """The same run with a process that died; ``answer``: changed fields of the requests' ends."""

    def changed(entry: Entry) -> Entry:
        match entry:
            case RunEnded():
                return replace(entry, died=(DeadProcess("prefill-0", DIED),))
            case Ended() if answer:
                return replace(entry, choices=(), **answer)
            case _:
                return entry

    return History(tuple(map(changed, history.entries)))


def test_failures_after_a_death_are_unknown_and_the_process_is_named() -> None:
    refused = {"outcome": Outcome.INFO, "status": 502, "ending": Ending.REFUSED, "cause": "no route to prefill-0"}
    judgement = judge(run.DEPLOYMENT, with_a_death(run.history(), **refused))
    checks = {check.name: check for check in judgement.checks}
    assert judgement.verdict is Verdict.UNKNOWN
    assert checks["completion"].verdict is Verdict.UNKNOWN
    assert "see processes" in checks["completion"].summary
    assert checks["processes"].verdict is Verdict.UNKNOWN
    assert checks["processes"].findings[0].subject == "prefill-0"
    assert "status 137" in checks["processes"].summary


def test_the_same_failures_without_a_death_are_invalid() -> None:
    refused = [
        replace(entry, choices=(), outcome=Outcome.INFO, status=502, ending=Ending.REFUSED)
        if isinstance(entry, Ended)
        else entry
        for entry in run.history().entries
    ]
    assert judge(run.DEPLOYMENT, History(tuple(refused))).verdict is Verdict.INVALID


def test_wrong_counters_are_unknown_after_a_death() -> None:
    """A transfer from a server that died also fails on the other server."""
    seen = run.history(run.readings(run.PREFILL, run.DECODE | {"external": 0, "compute": 228, "nixl": 0}))
    assert judge(run.DEPLOYMENT, seen).verdict is Verdict.INVALID
    assert judge(run.DEPLOYMENT, with_a_death(seen)).verdict is Verdict.UNKNOWN


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--workload", "short_prompt")])
def test_run_and_check_end_in_exit_code_4(
    tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Nursery, "dead", lambda _: {"sim": "sim ended with status 137: no memory"})
    flags = ["--engine", "sim", "--plain", "--num-warmups", "1", "--num-prompts", "8", "--result-dir", str(tmp_path)]
    assert main([*flags, *words]) == 4
    shown = capsys.readouterr().out
    assert shown.startswith("UNKNOWN: ")
    assert "sim ended with status 137: no memory" in shown
    assert load_run(tmp_path / "latest")[1].died == (DeadProcess("sim", "sim ended with status 137: no memory"),)
    assert main(["check", str(tmp_path / "latest"), "--plain"]) == 4


def test_the_pytest_plugin_records_the_death() -> None:
    session = Carried(run.DEPLOYMENT, with_a_death(run.history()))
    checks = {check.name: check.verdict for check in judged(session, "cold", None, 0).judgement.checks}
    assert checks["processes"] is Verdict.UNKNOWN
