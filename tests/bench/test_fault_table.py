"""The table of bench.faults: what a row counts, what is marked, and how a broken run goes on."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import counted_run as run
import pytest

from bench import faults
from bench.fault_cases import GROUPS, Case, Pair, Shortfall
from bench.fault_row import COLUMNS, Row, row
from bench.fault_table import Table, markdown
from harness.errors import DeployError, ExitCode
from harness.history import Ended, Ending, FaultBegan, FaultHealed, FaultPlanned, FaultProved, History, Outcome, Sent
from harness.scenario import Route
from harness.verdict import Check, Finding, FindingKind, Judgement, Verdict

CASE = Case(faults=("pause:server=decode-0",))
VALID = Judgement((Check("outputs", Verdict.VALID, ""),))
WRONG = Judgement((Check("outputs", Verdict.INVALID, "", (), (Finding("r1", "", FindingKind.WRONG_OUTPUT, "r1"),)),))
REFUSED = {"outcome": Outcome.INFO, "status": 500, "ending": Ending.REFUSED}
HUNG = {"outcome": Outcome.INFO, "status": None, "ending": Ending.TIMED_OUT}
FAULT = (
    FaultPlanned(0.1, "pause-1", "pause", "decode-0", "stop decode-0", (), "cold", "load"),
    FaultBegan(0.9, "pause-1"),
    FaultProved(0.9, "pause-1", "12 processes are stopped"),
    FaultHealed(2.5, "pause-1", healed=True, text="they go on"),
)


def ended(request: str, end: dict[str, Any], **fields: Any) -> History:
    """The clean run; one request was sent with ``fields`` and ended like this."""
    entries = [
        replace(one, request=replace(one.request, **fields))
        if isinstance(one, Sent) and one.request.request_id == request
        else replace(one, **end)
        if isinstance(one, Ended) and one.request_id == request
        else one
        for one in run.history().entries
    ]
    return History(tuple(entries))


def made(case: Case = CASE, history: History | None = None, judgement: Judgement = VALID, **more: Any) -> Row:
    return row("usual", case, run.DEPLOYMENT, run.history() if history is None else history, judgement, **more)


def test_requests_that_overlap_a_fault_are_no_bystanders() -> None:
    history = ended("r1", REFUSED)
    found = made(history=History((*FAULT, *history.entries)))
    assert (found.completed, found.failed, found.bystanders) == (1, 1, 0)
    assert found.evidence == "12 processes are stopped"


def test_a_load_without_a_fault_is_counted_whole() -> None:
    found = made(Case(workload="preemption"), ended("r1", HUNG))
    assert (found.completed, found.failed, found.hung, found.bystanders) == (1, 0, 1, 0)


def test_what_keeps_prefill_busy_beside_a_load_is_not_counted() -> None:
    churned = ended("r1", {}, route=Route.PREFILL)
    assert made(history=History((*FAULT, *churned.entries))).completed == 1


def test_beside_spoiled_references_requests_without_one_are_bystanders() -> None:
    case = Case(workload="other_blocks")
    assert made(case, ended("r1", REFUSED, reference_of="r0")).bystanders == 0
    spoiled = ended("r1", REFUSED, reference_of="r0")
    both = History(
        tuple(
            replace(one, **REFUSED) if isinstance(one, Ended) and one.request_id == "r0" else one
            for one in spoiled.entries
        )
    )
    assert made(case, both).bystanders == 1


def test_only_what_the_shortfall_explains_is_marked_as_the_engines() -> None:
    case = replace(CASE, shortfall=Shortfall("what", "how", frozenset({"outputs"})))
    assert made(case, judgement=WRONG).engine
    assert not made(CASE, judgement=WRONG).engine
    assert not made(case).engine
    more = Judgement((*WRONG.checks, Check("settled", Verdict.INVALID, "")))
    assert not made(case, judgement=more).engine


def test_a_run_that_must_be_invalid_may_not_have_wrong_outputs_or_hang() -> None:
    case = Case(on="a peer that refuses", meant="nothing can be served")
    unserved = Judgement((Check("completion", Verdict.INVALID, ""),))
    assert made(case, ended("r1", REFUSED), unserved).meant
    assert not made(case, ended("r1", HUNG), unserved).meant
    assert not made(case, judgement=WRONG).meant
    assert not made(case).meant
    assert made(case).counts is Verdict.INVALID


def test_a_verdict_other_than_the_one_that_is_right_counts() -> None:
    case = Case(faults=("metrics:how=nan",), meant="it cannot be told", must_be=Verdict.UNKNOWN)
    judged = {one: Judgement((Check("token_sources", one, ""),)) for one in Verdict}
    counted = {
        one: made(case, judgement=judged[one]).counts for one in (Verdict.VALID, Verdict.UNKNOWN, Verdict.INVALID)
    }
    assert counted == {
        Verdict.VALID: Verdict.INVALID,
        Verdict.UNKNOWN: Verdict.VALID,
        Verdict.INVALID: Verdict.INVALID,
    }


def test_a_shortfall_that_hangs_explains_nothing_if_nothing_hung() -> None:
    shortfall = Shortfall("it hangs", "a script", frozenset({"faults"}), hangs=True)
    judged = replace(WRONG, checks=(Check("faults", Verdict.INVALID, "it did not recover"),))
    assert not made(Case(shortfall=shortfall), judgement=judged).engine
    assert made(Case(shortfall=shortfall), ended("r1", HUNG), judged).engine


def test_a_row_says_how_often_its_case_was_run() -> None:
    assert made().cells()[0] == CASE.text
    assert replace(made(), tries=2).cells()[0] == f"{CASE.text} (run 2; those before were unknown)"


def test_a_row_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = made(judgement=WRONG)
    Table(tmp_path).add(found)
    assert Table.open(tmp_path, resume=True).rows == {("usual", CASE.text): found}
    assert Table.open(tmp_path, resume=False).rows == {}


def test_the_table_marks_the_engines_rows_and_says_below_how_to_see_them() -> None:
    lease, other = GROUPS["leases"].cases[0], GROUPS["parameters"].cases[4]
    rows = [
        replace(made(), group="parameters", fault=other.text, verdict=Verdict.INVALID, engine=True),
        replace(made(), group="leases", fault=lease.text, verdict=Verdict.INVALID, engine=True),
        made(),
    ]
    lines = list(markdown({(one.group, one.fault): one for one in rows}))
    assert lines[0] == f"| {' | '.join(COLUMNS)} |"
    assert lines[2].startswith("| `pause:server=decode-0` | valid | 2 |")
    assert lines[3].startswith("| `lease:server=decode-0`, leases of 3 s | invalid (engine, 1) |")
    assert lines[4].startswith("| `--workload used_after_reuse` | invalid (engine, 2) |")
    assert "--fault lease" in lines[6]
    assert lines[7].startswith("2. A reference that is used again")


Left = list[tuple[str, Case]]
Running = Callable[[Pair, Left, argparse.Namespace, Callable[[Row], None]], Any]


def carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_pair: Running, *more: str) -> int:
    async def run_on_pair(*arguments: Any) -> list[str]:
        result: list[str] = on_pair(*arguments)
        return result

    monkeypatch.setattr(faults, "run_on_pair", run_on_pair)
    return faults.main(["--group", "pools", "--group", "tiers", "--out", str(tmp_path), *more])


def all_valid(_pair: Pair, left: Left, _options: argparse.Namespace, add: Callable[[Row], None]) -> list[str]:
    while left:
        group, case = left.pop(0)
        add(row(group, case, run.DEPLOYMENT, run.history(), VALID))
    return []


def test_all_cases_are_run_and_a_resumed_run_makes_none_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def counted(pair: Pair, left: Left, *others: Any) -> list[str]:
        seen.extend(case.workload for _, case in left)
        return all_valid(pair, left, *others)

    assert carried_out(tmp_path, monkeypatch, counted) == ExitCode.VALID
    assert seen == ["burst_of_twenty", "preemption", "pool_churn", "tier_overflow"]
    assert carried_out(tmp_path, monkeypatch, counted, "--resume") == ExitCode.VALID
    assert len(seen) == 4
    assert carried_out(tmp_path, monkeypatch, counted) == ExitCode.VALID
    assert len(seen) == 8


def test_after_a_case_that_could_not_be_run_the_others_have_a_pair_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[int] = []

    def first_fails(pair: Pair, left: Left, *others: Any) -> list[str]:
        pairs.append(len(left))
        if len(pairs) == 1:
            left.pop(0)
            return ["it could not be run"]
        return all_valid(pair, left, *others)

    assert carried_out(tmp_path, monkeypatch, first_fails) == ExitCode.HARNESS
    assert pairs == [3, 2, 1]


def test_a_pair_that_cannot_be_launched_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_pools(pair: Pair, left: Left, *others: Any) -> list[str]:
        if pair.preset.name == "small_pool":
            raise DeployError("no memory")
        return all_valid(pair, left, *others)

    assert carried_out(tmp_path, monkeypatch, no_pools) == ExitCode.HARNESS
    assert capsys.readouterr().err.count("no memory") == 3
    assert [group for group, _ in Table.open(tmp_path, resume=True).rows] == ["tiers"]


@pytest.mark.parametrize(("change", "code"), [({}, 1), ({"engine": True}, 0), ({"meant": True}, 0)])
def test_what_is_known_of_the_engine_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, bool], code: int
) -> None:
    def one_wrong(pair: Pair, left: Left, options: argparse.Namespace, add: Callable[[Row], None]) -> list[str]:
        if pair.preset.name != "small_tier":
            return all_valid(pair, left, options, add)
        group, case = left.pop(0)
        add(replace(row(group, case, run.DEPLOYMENT, run.history(), WRONG), **change))
        return []

    assert carried_out(tmp_path, monkeypatch, one_wrong) == code
