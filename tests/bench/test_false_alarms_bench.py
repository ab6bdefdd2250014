"""What the bench of drawn noise counts, with rules that accuse what the test wants."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from recorded_runs import accuse_all, accuse_none, planted

from bench import false_alarms
from bench.false_alarms import HUGE, Size, judge_run, measure
from bench.synthetic import KINDS
from harness.verify.judging.forcing import Forced
from harness.verify.judging.ruling import Own, Ruling, rule_on

SMALL = Size(16, 32, 20)
FEW = ["--runs", "20", "--most-requests", "16"]


def accuse_wrong_ones(served: Sequence[Forced]) -> Mapping[int, str]:
    return {index: "planted" for index, one in enumerate(served) if one.drift.mean() > 0.3}


def test_a_rule_that_always_accuses_fails_the_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(false_alarms, "rule_on", planted(accuse_all))
    assert false_alarms.main([*FEW, "--kinds", "gaussian", "flips"]) == 1
    printed = capsys.readouterr().out
    assert "40 alarms in 40 runs" in printed
    assert "80 alarms in 80 runs" in printed
    assert "gaussian: alarms exceed the stated rate" in printed


def test_a_rule_that_never_accuses_passes_and_finds_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(false_alarms, "rule_on", planted(accuse_none))
    assert false_alarms.main([*FEW, "--kinds", "gaussian"]) == 0
    assert "found   0 in 100 of 2" in capsys.readouterr().out


def test_runs_that_are_not_judged_do_not_count_as_runs_without_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(false_alarms, "rule_on", lambda *_: "too few")
    row = measure("gaussian", SMALL, 20, 0)
    assert (row.alarms.judged, row.alarms.unjudged, row.near, row.found) == (0, 20, 0, 0)


def test_damaged_outputs_are_drawn_wrong_and_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(false_alarms, "rule_on", planted(accuse_wrong_ones))
    row = measure("gaussian", SMALL, 30, 0)
    assert (row.alarms.alarms, row.found, row.damaged) == (0, 3, 3)


def test_further_controls_are_drawn_while_an_output_is_accused(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    repeated: list[int] = []

    def rule(controls: Sequence[Forced], served: Sequence[Forced], own: Own) -> Ruling | str:
        seen.append(len(controls))
        repeated.append(len(own))
        return planted(accuse_all if len(seen) < 3 else accuse_none)(controls, served)

    monkeypatch.setattr(false_alarms, "rule_on", rule)
    trial = judge_run(np.random.default_rng(0), KINDS["gaussian"], SMALL)
    assert (seen, repeated) == ([32, 96, 160], [0, 8, 16])
    assert (trial.near, trial.accused) == (True, frozenset())


def test_the_rule_that_judges_runs_is_the_one_that_is_measured() -> None:
    assert false_alarms.rule_on is rule_on


def test_huge_runs_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Size] = []

    def measure(kind: str, size: Size, runs: int, _seed: int) -> false_alarms.Row:
        measured.append(size)
        return false_alarms.Row(kind, size, 0, false_alarms.Alarms(0, runs), 0, 1)

    monkeypatch.setattr(false_alarms, "measure", measure)
    assert false_alarms.main(["--kinds", "flips", "--most-requests", "16", "--huge"]) == 0
    assert measured == [Size(16, 32, 20), Size(16, 32, 60), *HUGE]
    assert {size.requests for size in HUGE} == {20_000}


def test_no_size_at_all_is_an_error() -> None:
    with pytest.raises(SystemExit, match="2"):
        false_alarms.main(["--most-requests", "1"])


@pytest.mark.slow
def test_several_processes_print_what_one_prints(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for processes in ("1", "2"):
        false_alarms.main([*FEW, "--kinds", "bursts", "student-3", "--processes", processes])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
