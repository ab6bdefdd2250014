"""What a run with faults may show: errors while a fault is at work, never a hang, nothing without evidence."""

from collections.abc import Iterable
from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers import judge
from harness.checkers.windows import windows
from harness.history import (
    Ended,
    Ending,
    Entry,
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    FaultProved,
    History,
    Outcome,
    Sent,
    Tolerated,
)
from harness.verdict import Check, Verdict

ALL = tuple(Tolerated)


def fault(*, began: float = 0.9, healed_at: float = 2.0, tolerates: tuple[Tolerated, ...] = ALL) -> list[Entry]:
    return [
        FaultPlanned(0.1, "pause-1", "pause", "decode-0", "stop decode-0", tolerates, "cold", "load"),
        FaultBegan(began, "pause-1"),
        FaultProved(began, "pause-1", "12 processes are stopped"),
        FaultHealed(healed_at, "pause-1", healed=True, text="they go on"),
    ]


def served_later(at: float = 2.5) -> Iterable[Entry]:
    """An operation that was sent after the fault was healed, in a phase that is not counted."""
    sent, ended = run.operation(replace(run.request(0), request_id=f"later-{at:g}"), "later")
    yield replace(sent, at=at, intended_at=at)
    yield replace(ended, at=at + 0.5, token_times=(), tokens_per_chunk=())


def failing(history: History, **end: object) -> History:
    """The same history; the first request ended otherwise."""
    first = next(entry for entry in history.entries if isinstance(entry, Ended))
    changed = replace(first, choices=(), usage=None, token_times=(), tokens_per_chunk=(), **end)
    return History(tuple(changed if entry is first else entry for entry in history.entries))


def history(*more: Entry) -> History:
    whole = run.history(None, None, *more)
    return History(tuple(sorted(whole.entries, key=lambda entry: isinstance(entry, FaultHealed))))


def check(judged: History, name: str) -> Check:
    return next(one for one in judge(run.DEPLOYMENT, judged).checks if one.name == name)


CUT = {"outcome": Outcome.INFO, "status": 200, "ending": Ending.CUT, "cause": "the connection broke"}


def test_a_fault_that_was_observed_healed_and_recovered_from_is_valid() -> None:
    found = check(history(*fault(), *served_later()), "faults")
    assert found.verdict is Verdict.VALID
    assert "recovered within 1.0 s" in found.summary


@pytest.mark.parametrize("missing", [FaultBegan, FaultProved, FaultHealed])
def test_a_fault_without_one_of_its_entries_is_unknown(missing: type[Entry]) -> None:
    entries = [one for one in fault() if not isinstance(one, missing)]
    if missing is FaultBegan:
        entries = entries[:1]
    assert check(history(*entries, *served_later()), "faults").verdict is Verdict.UNKNOWN


def test_evidence_of_an_earlier_phase_is_none_of_a_later_fault_of_the_same_name() -> None:
    proved = fault()
    later = [replace(one, at=one.at + 10) for one in fault() if not isinstance(one, FaultProved)]
    judged = history(*proved, *served_later(), *later, *served_later(13.0))
    first, second = windows(judged)
    assert first.evidence
    assert not second.evidence
    assert second.began == 10.9
    assert check(judged, "faults").verdict is Verdict.UNKNOWN


def test_a_fault_that_could_not_be_undone_is_unknown() -> None:
    entries = [replace(one, healed=False) if isinstance(one, FaultHealed) else one for one in fault()]
    assert check(history(*entries, *served_later()), "faults").verdict is Verdict.UNKNOWN


def test_a_run_without_a_request_after_the_healing_is_unknown() -> None:
    found = check(history(*fault()), "faults")
    assert found.verdict is Verdict.UNKNOWN
    assert "no request was sent" in found.summary


def test_a_deployment_that_never_serves_again_is_invalid() -> None:
    late = 2.0 + 60.0
    sent, ended = served_later(late)
    assert isinstance(ended, Ended)
    refused = replace(ended, choices=(), outcome=Outcome.INFO, status=502, ending=Ending.REFUSED)
    found = check(history(*fault(), sent, refused), "faults")
    assert found.verdict is Verdict.INVALID
    assert "did not recover" in found.summary


def test_a_request_may_be_cut_while_a_fault_is_at_work() -> None:
    found = check(failing(history(*fault(), *served_later()), **CUT), "completion")
    assert found.verdict is Verdict.VALID
    assert "1 failed clearly while a fault was at work" in found.summary


def test_a_request_may_not_be_cut_without_a_fault() -> None:
    assert check(failing(history(), **CUT), "completion").verdict is Verdict.INVALID


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param(fault(began=5.0, healed_at=6.0), id="the fault began later"),
        pytest.param(fault(began=0.2, healed_at=0.3), id="the deployment had recovered before"),
        pytest.param(fault(tolerates=(Tolerated.EVICTION,)), id="the fault may not do this"),
    ],
)
def test_a_fault_that_is_no_cause_excuses_nothing(entries: list[Entry]) -> None:
    early = served_later(0.4) if entries[1] == FaultBegan(0.2, "pause-1") else ()
    cut = failing(history(*early, *entries, *served_later(6.5)), **CUT)
    assert check(cut, "completion").verdict is Verdict.INVALID


@pytest.mark.parametrize("ending", [Ending.CUT, Ending.TIMED_OUT])
def test_a_failure_during_a_fault_that_was_not_observed_is_unknown(ending: Ending) -> None:
    """The harness may have caused it: a link that was cut, although the relay's counts do not show it."""
    unproved = [one for one in fault() if not isinstance(one, FaultProved)]
    cut = failing(history(*unproved, *served_later(6.5)), **{**CUT, "ending": ending})
    found = check(cut, "completion")
    assert found.verdict is Verdict.UNKNOWN
    assert "1 did not" in found.summary


def test_a_request_that_waited_for_the_fault_alone_may_time_out() -> None:
    timed_out = {"at": 11.0, "outcome": Outcome.INFO, "status": None, "ending": Ending.TIMED_OUT, "cause": "10 s"}
    cut = failing(history(*fault(healed_at=9.0), *served_later(9.5)), **timed_out)
    assert check(cut, "completion").verdict is Verdict.VALID


def test_a_request_that_hangs_after_the_fault_was_undone_is_invalid() -> None:
    timed_out = {"at": 61.0, "outcome": Outcome.INFO, "status": None, "ending": Ending.TIMED_OUT, "cause": "60 s"}
    cut = failing(history(*fault(healed_at=2.0), *served_later(2.5)), **timed_out)
    assert check(cut, "completion").verdict is Verdict.INVALID


def test_a_restart_is_counted_from_zero() -> None:
    """Decode restarts in the phase: what it counted since then is judged, and too much of it is found."""
    before, after = run.reading("decode-0", "before", run.ZERO | {"prompt": 5000}), run.DECODE | {"started": 1.8e9}
    others = [run.reading("prefill-0", "before", run.ZERO), run.reading("prefill-0", "after", run.PREFILL)]

    def judged(values: dict[str, float], *more: Entry) -> Check:
        scraped = [before, *others, run.reading("decode-0", "after", values)]
        return check(run.history(scraped, None, *more), "token_sources")

    entries = [*fault(), *served_later()]
    assert judged(after).verdict is Verdict.UNKNOWN
    assert judged(after, *entries).verdict is Verdict.VALID
    assert judged(after | {"prompt": 4000, "compute": 3772}, *entries).verdict is Verdict.INVALID


def test_windows_of_a_history_without_faults_cost_nothing() -> None:
    assert windows(history()) == ()


def test_the_operations_that_overlap_a_fault() -> None:
    [window] = windows(history(*fault(began=1.2, healed_at=1.3), *served_later()))
    sent, ended = run.operation(run.request(0))
    assert isinstance(sent, Sent)
    [operation] = [one for one in history().operations() if one.request.request_id == sent.request.request_id]
    assert window.overlaps(operation)
    assert not window.overlaps(replace(operation, ended=replace(ended, at=1.1)))


@pytest.mark.parametrize(
    ("counted", "verdict"), [({"failed": 1}, Verdict.VALID), ({}, Verdict.UNKNOWN)], ids=["it came", "it did not"]
)
def test_a_fault_that_provoked_nothing_has_not_tested_it(counted: dict[str, float], verdict: Verdict) -> None:
    planned, *rest = fault()
    assert isinstance(planned, FaultPlanned)
    entries = [replace(planned, provokes="nixl_failed_transfers"), *rest, *served_later()]
    found = check(run.history(run.readings(decode=run.DECODE | counted), None, *entries), "faults")
    assert found.verdict is verdict, found.summary
    assert ("to provoke (nixl_failed_transfers)" in found.summary) is (verdict is Verdict.UNKNOWN)


def test_a_proxy_that_ran_out_of_files_is_no_evidence_against_the_deployment() -> None:
    refused = {"outcome": Outcome.INFO, "status": 507, "ending": Ending.REFUSED, "cause": "507: no more files"}
    found = check(failing(history(), **refused), "completion")
    assert found.verdict is Verdict.UNKNOWN
    assert "ulimit -n" in found.summary


def test_a_request_whose_transfer_failed_may_be_looked_up_in_the_caches_once_more() -> None:
    """Under ``kv_load_failure_policy`` recompute, decode schedules such a request anew, from its first token on."""
    again = run.DECODE | {"failed": 1, "external": 100, "compute": 128, "external_hits": 228, "nixl": 2 * run.BLOCK}
    again |= {"reads": 1, "prefix_queries": 228 + 128, "external_queries": 228 + 128}
    judged = run.history(run.readings(decode=again), None, *fault(), *served_later())
    assert check(judged, "token_sources").verdict is Verdict.VALID
    more = run.readings(decode=again | {"prefix_queries": 3 * 228})
    assert check(run.history(more, None, *fault(), *served_later()), "token_sources").verdict is Verdict.INVALID
