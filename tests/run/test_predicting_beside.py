"""What a run does with a process that predicts its counters."""

import asyncio

from jumping_clock import JumpingClock
from observed_journal import Journal

from harness.checkers import Predictions, judge
from harness.facts import Deployment, Role, Server
from harness.history import Choice, ClientHealth, Ended, Noted, Outcome, Sent
from harness.run import Recorder, Sending, Transport, carry_out
from harness.scenario import Phase, Request, Sampling, Scenario

DEPLOYMENT = Deployment(
    tuple(Server(f"{role}-0", role, f"http://{role}", block_size=16) for role in Role), "http://proxy", "m"
)
LOAD = Scenario("load", "", (Phase("load", (Request("r-0", (1, 2, 3), Sampling(1)),), 1),))


class Asked:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.began: list[tuple[Scenario, Deployment]] = []
        self.ended = 0

    def begin(self, scenario: Scenario, deployment: Deployment) -> str:
        self.began.append((scenario, deployment))
        return "what was decided"

    def predictions(self) -> Predictions | None:
        self.ended += 1
        return None


async def test_it_is_told_before_the_load_and_asked_when_the_run_is_judged() -> None:
    clock, asked = JumpingClock(), Asked()

    async def send(request: Request) -> Ended:
        return Ended(clock.now(), request.request_id, Outcome.OK, status=200, choices=(Choice((1,)),))

    async with asyncio.timeout(60):
        carried = await carry_out(
            [LOAD],
            DEPLOYMENT,
            sending=Sending(),
            verify=None,
            record=Recorder(),
            clock=clock,
            transport=Transport(send, Journal(), lambda _sent: ClientHealth(clock.now(), 0.0, 0.0, 0.0, 0.0)),
            beside=asked,
        )
    assert asked.began == [(LOAD, DEPLOYMENT)]
    assert asked.ended == 0
    assert carried.judgement == judge(DEPLOYMENT, carried.history)
    assert asked.ended == 1
    decided, sent = (next(n for n, e in enumerate(carried.history.entries) if isinstance(e, k)) for k in (Noted, Sent))
    assert decided < sent
