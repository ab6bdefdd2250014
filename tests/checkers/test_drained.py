"""A server that is asked to end may fail what it has begun, but may not leave it hanging."""

from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers.drained import SILENT_S
from harness.checkers.faults import faults
from harness.facts import Deployment
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
)
from harness.verdict import Verdict

BEGAN, KILLED, HEALED = 10.0, 40.0, 90.0
DEPLOYMENT: Deployment = run.DEPLOYMENT


def drained(*operations: Entry, kind: str = "drain", target: str = "decode-0") -> History:
    later = request("later", sent=95.0, ended=96.0, outcome=Outcome.OK, status=200, ending=Ending.COMPLETED)
    return History(
        (
            FaultPlanned(0.0, "fault-1", kind, target, "end it", (), "cold", "load"),
            FaultBegan(BEGAN, "fault-1"),
            FaultProved(KILLED, "fault-1", "it did not end by itself"),
            FaultHealed(HEALED, "fault-1", healed=True, text="it answers"),
            *operations,
            *later,
        )
    )


def request(name: str, *, sent: float, ended: float, tokens: tuple[float, ...] = (), **end: object) -> list[Entry]:
    cut = {"outcome": Outcome.INFO, "status": 200, "ending": Ending.CUT, "cause": "the connection broke"}
    cut |= {"prefill_server": "http://p", "decode_server": "http://d"} | end
    asked = replace(run.request(0), request_id=name)
    times = {"token_times": tokens, "tokens_per_chunk": (1,) * len(tokens)}
    return [Sent(sent, asked, "cold", "load", sent), Ended(ended, name, **times, **cut)]  # type: ignore[arg-type]


def verdict(history: History) -> Verdict:
    return faults(DEPLOYMENT, history).verdict


def test_a_stream_that_gets_nothing_until_the_server_is_killed_was_left_hanging() -> None:
    found = faults(DEPLOYMENT, drained(*request("r", sent=9.0, ended=KILLED, tokens=(9.5, 10.0))))
    assert found.verdict is Verdict.INVALID
    assert "decode-0 left 1 request without a token, an error or an end for 15 s or more after SIGTERM" in found.summary


def test_so_was_a_request_without_any_token() -> None:
    refused = {"status": 502, "ending": Ending.REFUSED, "cause": "HTTP 502"}
    assert verdict(drained(*request("r", sent=9.0, ended=KILLED, **refused))) is Verdict.INVALID


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(request("r", sent=9.0, ended=BEGAN + 1), id="it was cut at once"),
        pytest.param(request("r", sent=9.0, ended=KILLED, tokens=(KILLED - SILENT_S + 1,)), id="it got tokens"),
        pytest.param(
            request("r", sent=9.0, ended=KILLED, outcome=Outcome.OK, ending=Ending.COMPLETED), id="it was served"
        ),
        pytest.param(request("r", sent=BEGAN + 1, ended=KILLED), id="it was sent later"),
        pytest.param(request("r", sent=9.0, ended=KILLED, decode_server=None), id="it was on prefill"),
        pytest.param(
            request("r", sent=9.0, ended=KILLED, decode_server=None, prefill_server=None), id="nobody knows where"
        ),
    ],
)
def test_a_request_that_was_not_left_hanging_accuses_nobody(operation: list[Entry]) -> None:
    assert verdict(drained(*operation)) is Verdict.VALID


@pytest.mark.parametrize("kind", ["pause", "kill"])
def test_other_faults_may_keep_clients_waiting(kind: str) -> None:
    assert verdict(drained(*request("r", sent=9.0, ended=KILLED), kind=kind)) is Verdict.VALID


def test_a_drained_prefill_server_must_end_its_requests_too() -> None:
    waiting = request("r", sent=9.0, ended=KILLED, decode_server=None)
    assert verdict(drained(*waiting, target="prefill-0")) is Verdict.INVALID
