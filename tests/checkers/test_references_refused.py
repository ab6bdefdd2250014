"""Requests with a reference to KV that a decode server may refuse, but must not hang on, nor die of."""

from dataclasses import replace
from typing import Any

import counted_run as run
import pytest

from harness.catalogue.needs import Needs
from harness.catalogue.registry import Workload
from harness.checkers import judge
from harness.checkers.completion import completion
from harness.checkers.processes import processes
from harness.history import DeadProcess, Ended, Ending, Entry, History, Outcome, RunEnded, Sent
from harness.reports import Row
from harness.reports.rows import rows_of
from harness.scenario import Altered, Purpose, Route
from harness.verdict import Check, FaultSign, Finding, FindingKind, Judgement, KnownFault, Outputs, Verdict

DIED = DeadProcess("decode-0", "decode-0 ended with status 1: AssertionError")
REFUSED = {"outcome": Outcome.INFO, "status": 500, "ending": Ending.REFUSED, "choices": ()}
LAST = "r1"


def changed(died: tuple[DeadProcess, ...] = (), altered: str = LAST, **end: Any) -> History:
    """The clean run, in which one request was sent to decode with an altered reference, and ended like this."""

    def of(entry: Entry) -> Entry:
        match entry:
            case Sent() if entry.request.request_id == altered:
                fields = {"altered": Altered.NO_GROUPS, "reference": "{}", "may_be_refused": True}
                return replace(entry, request=replace(entry.request, route=Route.DECODE, **fields))
            case Ended() if entry.request_id == altered and end:
                return replace(entry, **end)
            case RunEnded():
                return replace(entry, died=died)
            case _:
                return entry

    return History(tuple(map(of, run.history().entries)))


@pytest.mark.parametrize("end", [REFUSED, {**REFUSED, "ending": Ending.ERROR_INSIDE, "status": 200}, {}])
def test_a_clear_error_is_as_right_as_an_answer(end: dict[str, Any]) -> None:
    assert completion(run.DEPLOYMENT, changed(**end)).verdict is Verdict.VALID


def test_the_refused_requests_are_counted() -> None:
    assert "1 were refused clearly, as they may be" in completion(run.DEPLOYMENT, changed(**REFUSED)).summary


@pytest.mark.parametrize("ending", [Ending.TIMED_OUT, Ending.UNFINISHED, Ending.CUT])
def test_no_end_or_half_an_answer_is_invalid(ending: Ending) -> None:
    check = completion(run.DEPLOYMENT, changed(**{**REFUSED, "ending": ending, "status": 200}))
    assert check.verdict is Verdict.INVALID
    assert check.findings[0].request == LAST


def test_a_request_that_must_be_served_may_still_not_be_refused() -> None:
    history = History(
        tuple(
            replace(entry, **REFUSED) if isinstance(entry, Ended) and entry.request_id == LAST else entry
            for entry in run.history().entries
        )
    )
    assert completion(run.DEPLOYMENT, history).verdict is Verdict.INVALID


def test_a_server_that_dies_of_a_reference_is_invalid_and_the_request_is_named() -> None:
    end = {**REFUSED, "ending": Ending.CUT, "status": None, "at": 1e6}
    judgement = judge(run.DEPLOYMENT, changed((DIED,), **end))
    check = next(check for check in judgement.checks if check.name == "processes")
    assert check.verdict is Verdict.INVALID
    assert (check.findings[0].request, check.findings[0].server) == (LAST, "decode-0")
    assert "altered (no-groups)" in check.summary


@pytest.mark.parametrize(
    ("died", "end"),
    [
        (replace(DIED, name="prefill-0"), {**REFUSED, "at": 1e6}),
        # The other request was answered later.
        (DIED, {**REFUSED, "at": 0.0}),
        (DIED, {}),
    ],
)
def test_another_death_is_no_evidence_against_a_reference(died: DeadProcess, end: dict[str, Any]) -> None:
    check = processes(run.DEPLOYMENT, changed((died,), **end))
    assert check.verdict is Verdict.UNKNOWN
    assert check.findings[0].request is None


def judged(*others: Check) -> Judgement:
    gone = Check("processes", Verdict.INVALID, "died", findings=(Finding("decode-0", "died", request="a"),))
    return Judgement((gone, *others), Outputs(requests=2, unverified=2))


def fault(*, ends_server: bool) -> KnownFault:
    device, version = run.DEPLOYMENT.device or "", run.DEPLOYMENT.servers[0].version or ""
    sign = FaultSign("processes", findings=FindingKind.OTHER)
    return KnownFault((sign,), (version,), (device,), "an assertion", ends_server=ends_server)


def test_a_known_fault_that_ends_a_server_excuses_what_is_unknown_because_of_it() -> None:
    deployment = replace(run.DEPLOYMENT.with_servers(version="0.32.0"), device="cpu")
    known = replace(fault(ends_server=True), versions=("0.32.0",), devices=("cpu",))
    unknown = Check("completion", Verdict.UNKNOWN, "not connected")
    assert known.excuses(judged(unknown), deployment)
    assert not replace(known, ends_server=False).excuses(judged(unknown), deployment)
    assert not known.excuses(judged(Check("outputs", Verdict.INVALID, "wrong")), deployment)
    assert not known.excuses(Judgement((unknown,)), deployment)


def rows(known: KnownFault | None) -> list[Row]:
    """The table of a run in which a server died of a reference, and a verifying request found it gone."""
    deployment = replace(run.DEPLOYMENT.with_servers(version="0.32.0"), device="cpu")
    late = run.operation(
        replace(run.request(0), request_id="probe", route=Route.DECODE, purpose=Purpose.PROBE, about="r0"),
        "later",
        **{**REFUSED, "status": None, "ending": Ending.NOT_CONNECTED, "outcome": Outcome.FAIL},
    )
    asked, ended = late
    entries = changed((DIED,), **{**REFUSED, "at": 1e6}).entries
    history = History((*entries[:-1], replace(asked, scenario="verification"), ended, entries[-1]))
    entry = Workload("cold", "parameters", "", "", Needs(), "multi", None, known, lambda _: ())
    whole = judge(deployment, history)
    return rows_of([entry], "here", left={}, deployment=deployment, history=history, whole=whole)


def test_what_is_unknown_because_a_known_fault_ended_a_server_has_no_row_of_its_own() -> None:
    known = replace(fault(ends_server=True), versions=("0.32.0",), devices=("cpu",))
    assert [row.word for row in rows(None)] == ["invalid", "unknown"]
    assert [row.word for row in rows(known)] == ["known fault"]
