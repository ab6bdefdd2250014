"""Times of workers whose clocks are not known well enough are no evidence."""

import pytest
import run_fixtures as run

from harness.checkers.client_health import client_health
from harness.history import ClientHealth, ClockCompared, Entry, History
from harness.store.journal import decode_entry, encode_entry
from harness.verdict import Check, Verdict

HEALTH = ClientHealth(9.0, 0.01, 0.01, 0.001, 0.2, worker="worker-1")


def judged(*entries: Entry) -> Check:
    return client_health(run.DEPLOYMENT, History((ClientHealth(9.0, 0.01, 0.01, 0.001, 0.2), HEALTH, *entries)))


def test_a_clock_that_agrees_is_valid_however_far_ahead_it_was() -> None:
    check = judged(ClockCompared(8.0, "worker-0", 0.0, 0.0002), ClockCompared(8.0, "worker-1", 3.0, 0.002, -0.001))
    assert check.verdict is Verdict.VALID
    assert "the clocks of 2 workers agreed with the run's to within 3.0 ms" in check.summary


@pytest.mark.parametrize(("uncertainty", "drift"), [(0.006, 0.0), (0.001, 0.02), (0.001, -0.02), (0.003, 0.003)])
def test_a_clock_that_may_be_wrong_is_unknown_and_named(uncertainty: float, drift: float) -> None:
    check = judged(ClockCompared(8.0, "worker-0", 0.0, 0.0002), ClockCompared(8.0, "worker-1", 0.0, uncertainty, drift))
    assert check.verdict is Verdict.UNKNOWN
    (finding,) = check.findings
    assert finding.subject == "worker-1"
    assert "more than 5 ms" in finding.text


def test_a_worker_that_did_not_keep_up_is_named() -> None:
    check = judged(ClientHealth(9.0, 0.01, 0.01, 0.001, 0.99, worker="worker-2"))
    assert check.verdict is Verdict.UNKNOWN
    assert [one.subject for one in check.findings] == ["worker-2"]


@pytest.mark.parametrize("entry", [HEALTH, ClockCompared(8.0, "worker-1", 3.0, 0.002, -0.001)])
def test_both_are_kept_in_the_journal(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry)) == entry
