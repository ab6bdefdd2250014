"""Operations that several workers report: each has one end, whatever becomes of the workers."""

from hand_clock import HandClock
from observed_journal import Journal

from harness.fleet.messages import Batch, pack
from harness.fleet.operations import Operations
from harness.history import Ended, Ending, Outcome, Sent
from harness.observer import SILENT
from harness.run.conversations import Conversations
from harness.run.runner import PhaseRun
from harness.scenario import Phase, Request

LOST, OTHER = Request("lost-0", (1,)), Request("other-0", (2,))
SECOND = Request("lost-1", (3,))


async def _never(request: Request) -> Ended:
    raise AssertionError(request)


def test_an_operation_whose_end_waits_to_be_recorded_is_not_ended_again_when_its_worker_is_lost() -> None:
    """The end of a request was reported, and waited for a slower worker's reports of the time before it."""
    phase, journal, clock = Phase("load", (LOST, SECOND, OTHER), 3), Journal(), HandClock()
    run = PhaseRun("s", phase, _never, journal.record, clock, SILENT, Conversations(()))
    parts = {"worker-0": Phase("load", (LOST, SECOND), 2), "worker-1": Phase("load", (OTHER,), 1)}
    operations = Operations(run, parts, failed=lambda _: None)
    known = {one.request_id: one for one in phase.requests}
    begun = [pack(Sent(at, one, "s", "load", at), known) for at, one in ((1.0, LOST), (2.0, SECOND))]
    ended = pack(Ended(5.0, "lost-0", Outcome.OK), known)
    operations.reported("worker-0", Batch((*begun, ended), until=6.0))
    operations.reported("worker-1", Batch((pack(Sent(1.5, OTHER, "s", "load", 1.5), known),), until=3.0))
    died = operations.lost("worker-0", "was ended by signal 9")
    operations.reported("worker-1", Batch((pack(Ended(7.0, "other-0", Outcome.OK), known),), until=8.0, last=True))
    ends = {name: end.ending for name, end in journal.ends().items()}
    completed = dict.fromkeys(("lost-0", "other-0"), Ending.COMPLETED)
    assert ends == completed | {"lost-1": Ending.CLIENT_CRASHED}
    assert "1 of its requests were in flight, and 0 more" in died.text
