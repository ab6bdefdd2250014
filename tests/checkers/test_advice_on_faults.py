"""Advice on faults follows from what the history has of them."""

import pytest
from run_fixtures import DEPLOYMENT, STARTED

from harness.checkers.advice import advised
from harness.history import Entry, FaultBegan, FaultHealed, FaultPlanned, FaultProved, History
from harness.verdict import Check, Finding, Verdict

PLANNED = FaultPlanned(0.0, "pause-1", "pause", "decode-0", "stop decode-0", (), "random_load", "load")
BEGAN, PROVED = FaultBegan(1.0, "pause-1"), FaultProved(1.1, "pause-1", "stopped")


@pytest.mark.parametrize(
    ("entries", "remedy"),
    [
        ((PLANNED,), "an earlier moment"),
        ((PLANNED, BEGAN), "let it last longer"),
        ((PLANNED, BEGAN, PROVED), "start a deployment anew"),
        ((PLANNED, BEGAN, PROVED, FaultHealed(2.0, "pause-1", healed=True, text="it goes on")), "--duration-sec"),
    ],
)
def test_what_to_do_depends_on_how_far_the_fault_came(entries: tuple[Entry, ...], remedy: str) -> None:
    check = Check("faults", Verdict.UNKNOWN, "a summary", findings=(Finding("pause-1", "words"),))
    (found,) = advised(DEPLOYMENT, History((STARTED, *entries)), (check,))
    assert found.advice is not None
    assert remedy in found.advice.remedy


def test_a_deployment_that_did_not_recover_is_named_as_the_cause() -> None:
    check = Check("faults", Verdict.INVALID, "a summary", findings=(Finding("pause-1", "words"),))
    (found,) = advised(DEPLOYMENT, History((STARTED, PLANNED, BEGAN, PROVED)), (check,))
    assert found.advice is not None
    assert "did not come back" in found.advice.cause
